//! Replaces suppaftp's module test_container, which runs pure-ftpd in a container from a registry
//! of images. This module starts Debian's pure-ftpd on loopback, with a directory of its own below
//! `PURE_FTPD_DIRECTORY`. Dropping the runner ends the server. pure-ftpd needs root.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

/// The id of Debian's user `nobody`, and of its group.
const NOBODY: u32 = 65534;
/// The crypt(3) hash of the password `test`. A hash by pure-pw would take a second to compute, at
/// its creation and at each login.
const PASSWORD: &str = "$1$depends$npt6tFYZR3v23bVWb4IIn/";

pub struct SyncPureFtpRunner {
    server: Child,
    port: u16,
    directory: PathBuf,
}

impl SyncPureFtpRunner {
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(env::var_os("PURE_FTPD_DIRECTORY").expect("PURE_FTPD_DIRECTORY is set"));
        let directory = directory.join(format!("{}-{number}", process::id()));
        let home = directory.join("home");
        fs::create_dir_all(home.join("invalid-utf8")).expect("the directory is created");
        fs::write(home.join("invalid-utf8").join("caf\\303\\251.txt"), "").expect("the file is created");
        chown(&home, Some(NOBODY), Some(NOBODY)).expect("the owner of the directory is changed");
        let (passwords, database) = (directory.join("passwords"), directory.join("database"));
        let entry = format!("test:{PASSWORD}:{NOBODY}:{NOBODY}::{}/./::::::::::::\n", home.display());
        fs::write(&passwords, entry).expect("the password is written");
        let made = Command::new("pure-pw").arg("mkdb").arg(&database).arg("-f").arg(&passwords).status();
        assert!(made.expect("pure-pw runs").success());
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = free.local_addr().expect("the socket has an address").port();
        drop(free);
        let server = Command::new("pure-ftpd")
            .args(["-E", "-H", "-u", "1", "-f", "none", "-S", &format!("127.0.0.1,{port}")])
            .arg("-l")
            .arg(format!("puredb:{}", database.display()))
            .arg("-g")
            .arg(directory.join("pid"))
            .stdin(Stdio::null())
            .spawn()
            .expect("pure-ftpd runs");
        let runner = Self { server, port, directory };
        runner.wait();
        runner
    }

    /// Waits until the server sends its greeting.
    ///
    /// # Panics
    /// Panics if the server does not listen within 30 s.
    fn wait(&self) {
        for _ in 0..600 {
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                let mut greeting = String::new();
                if BufReader::new(stream).read_line(&mut greeting).is_ok() && greeting.starts_with("220") {
                    return;
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("pure-ftpd does not listen");
    }

    pub fn get_ftp_port(&self) -> u16 {
        self.port
    }

    pub fn get_mapped_port(&self, port: u16) -> u16 {
        port
    }
}

impl Drop for SyncPureFtpRunner {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
        _ = fs::remove_dir_all(&self.directory);
    }
}
