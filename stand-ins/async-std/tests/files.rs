//! Tests of files, directories and paths.

use std::ffi::OsStr;
use std::future::poll_fn;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_std::fs::{self, File, OpenOptions};
use async_std::io::{self, BufReader, SeekFrom};
use async_std::path::{Path, PathBuf};
use async_std::prelude::*;
use async_std::task;

/// A temporary folder for one test. Dropping the value removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("async-std-stand-in-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path.into())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn written_bytes_are_read_back_from_any_position() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).await?;
        file.write_all(b"hello world").await?;
        assert_eq!(file.seek(SeekFrom::Current(0)).await?, 11);
        assert_eq!(file.seek(SeekFrom::Start(6)).await?, 6);
        let mut text = String::new();
        file.read_to_string(&mut text).await?;
        assert_eq!(text, "world");
        assert_eq!(file.seek(SeekFrom::End(-5)).await?, 6);
        file.write_all(b"there").await?;
        file.sync_all().await?;
        assert_eq!(fs::read_to_string(&path).await?, "hello there");
        file.set_len(5).await?;
        assert_eq!(file.metadata().await?.len(), 5);
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn write_begins_at_the_position_despite_read_ahead() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        fs::write(&path, b"0123456789").await?;
        let mut file = OpenOptions::new().read(true).write(true).open(&path).await?;
        // If the future of a read is dropped, the next read gets the bytes. If a thread for
        // blocking calls completes the read before the first poll returns, that poll returns the
        // bytes, and the test tries again.
        let mut large = [0; 8];
        loop {
            let mut read = pin!(file.read(&mut large));
            if poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await {
                break;
            }
            file.seek(SeekFrom::Start(0)).await?;
        }
        let mut small = [0; 3];
        file.read_exact(&mut small).await?;
        assert_eq!(&small, b"012");
        assert_eq!(file.seek(SeekFrom::Current(0)).await?, 3);
        file.write_all(b"abc").await?;
        file.flush().await?;
        assert_eq!(fs::read(&path).await?, b"012abc6789");
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn clones_share_the_position_and_references_can_read() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        fs::write(&path, b"one two").await?;
        let file = File::open(&path).await?;
        let clone = file.clone();
        let mut part = [0; 4];
        (&file).read_exact(&mut part).await?;
        let mut rest = String::new();
        (&clone).read_to_string(&mut rest).await?;
        assert_eq!((&part, rest.as_str()), (b"one ", "two"));
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn read_after_end_of_file_returns_bytes_added_since() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("log");
        let mut writer = File::create(&path).await?;
        let mut reader = File::open(&path).await?;
        for text in [b"data", b"more"] {
            writer.write_all(text).await?;
            writer.flush().await?;
            let mut buf = [0; 4];
            assert_eq!(reader.read(&mut buf).await?, 4);
            assert_eq!(&buf, text);
            assert_eq!(reader.read(&mut buf).await?, 0);
        }
        io::Result::Ok(())
    })
    .unwrap();
}

/// Regression test: the end of the file that a dropped read had found was the result of the next
/// read, although the file had grown.
#[test]
fn read_after_a_dropped_read_at_the_end_returns_bytes_added_since() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("log");
        let mut writer = File::create(&path).await?;
        let mut reader = open_and_begin_to_read(&path, 8).await;
        // The read finds the end of the empty file.
        task::sleep(Duration::from_millis(50)).await;
        writer.write_all(b"line\n").await?;
        writer.flush().await?;
        assert_eq!(reader.read(&mut [0; 8]).await?, 5);
        assert_eq!(reader.read(&mut [0; 8]).await?, 0);
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn drop_waits_for_writes() {
    let folder = Folder::new();
    task::block_on(async {
        for round in 0..50 {
            let path = folder.file("data");
            let text = format!("round {round}").repeat(1000);
            let mut file = File::create(&path).await?;
            file.write_all(text.as_bytes()).await?;
            drop(file);
            assert_eq!(std::fs::read_to_string(&path)?, text);
        }
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn error_of_a_write_is_returned_by_flush_or_sync_once() {
    task::block_on(async {
        let mut full = OpenOptions::new().write(true).open("/dev/full").await?;
        full.write_all(b"no room").await?;
        let error = full.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        full.flush().await?;
        let mut read_only = File::open("/dev/null").await?;
        read_only.write_all(b"x").await?;
        const EBADF: i32 = 9;
        assert_eq!(read_only.sync_all().await.unwrap_err().raw_os_error(), Some(EBADF));
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn lines_appended_by_many_tasks_are_whole() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("log");
        let file = OpenOptions::new().append(true).create(true).open(&path).await?;
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let mut file = file.clone();
                task::spawn(async move { file.write_all(format!("line {number:02}\n").as_bytes()).await })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        file.sync_data().await?;
        let mut lines = Vec::new();
        let mut written = BufReader::new(File::open(&path).await?).lines();
        while let Some(line) = written.next().await {
            lines.push(line?);
        }
        lines.sort();
        assert_eq!(lines, (0..20).map(|number| format!("line {number:02}")).collect::<Vec<_>>());
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn conversions_to_and_from_descriptors_preserve_the_file() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        let mut file = File::create(&path).await?;
        file.write_all(b"text").await?;
        let clone = file.clone();
        let fd = file.into_raw_fd();
        // SAFETY: `into_raw_fd` has passed the ownership of the descriptor to this function.
        let file = unsafe { File::from_raw_fd(fd) };
        assert_eq!(file.metadata().await?.len(), 4);
        assert!(clone.as_raw_fd() >= 0);
        io::Result::Ok(())
    })
    .unwrap();
}

/// Begins a read of at most `len` bytes and drops the future, as a timeout does. Returns false if
/// the read is already complete.
async fn begin_to_read(file: &mut File, len: usize) -> bool {
    let mut buf = vec![0; len];
    let mut read = file.read(&mut buf);
    poll_fn(|cx| Poll::Ready(Pin::new(&mut read).poll(cx).is_pending())).await
}

/// Opens the file at `path`, begins a read of at most `len` bytes, and drops the future of the read
/// before it returns the bytes.
async fn open_and_begin_to_read(path: &Path, len: usize) -> File {
    loop {
        let mut file = File::open(path).await.unwrap();
        if begin_to_read(&mut file, len).await {
            return file;
        }
    }
}

#[test]
fn conversion_continues_at_the_position_despite_read_ahead() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        fs::write(&path, b"hello world").await?;
        for with_clone in [false, true] {
            let mut file = open_and_begin_to_read(&path, 11).await;
            let clone = with_clone.then(|| file.clone());
            file.read_exact(&mut [0; 6]).await?;
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(OwnedFd::from(file)), &mut rest)?;
            assert_eq!(rest, "world");
            drop(clone);
        }
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn read_in_progress_does_not_move_the_offset_after_a_conversion() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        fs::write(&path, b"hello world").await?;
        for _ in 0..500 {
            let file = open_and_begin_to_read(&path, 11).await;
            let mut all = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(OwnedFd::from(file)), &mut all)?;
            assert_eq!(all, "hello world");
        }
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn conversion_does_not_wait_for_a_read_of_a_pipe() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    task::block_on(async {
        let mut file = File::from(OwnedFd::from(reader));
        let clone = file.clone();
        assert!(begin_to_read(&mut file, 4).await);
        let mut reader = std::fs::File::from(OwnedFd::from(file));
        std::io::Write::write_all(&mut writer, b"textmore")?;
        // The read that began before the conversion returns the first or the last four bytes.
        let (mut one, mut other) = ([0; 4], [0; 4]);
        std::io::Read::read_exact(&mut reader, &mut one)?;
        (&clone).read_exact(&mut other).await?;
        assert!([[one, other], [other, one]].contains(&[*b"text", *b"more"]));
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn write_of_a_clone_waits_for_set_len() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        for _ in 0..500 {
            let mut file = OpenOptions::new().create(true).append(true).open(&path).await?;
            file.write_all(b"old").await?;
            file.flush().await?;
            let clone = file.clone();
            let mut resize = pin!(file.set_len(0));
            // The truncation begins in this poll, so that it ends before the write begins.
            let resized = poll_fn(|cx| Poll::Ready(resize.as_mut().poll(cx))).await;
            (&clone).write_all(b"new").await?;
            (&clone).flush().await?;
            if resized.is_pending() {
                resize.await?;
            }
            assert_eq!(std::fs::read_to_string(&path)?, "new");
            fs::remove_file(&path).await?;
        }
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn set_len_returns_its_error() {
    let folder = Folder::new();
    task::block_on(async {
        let path = folder.file("data");
        fs::write(&path, b"text").await?;
        let file = File::open(&path).await?;
        assert_eq!(file.set_len(0).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        file.sync_all().await
    })
    .unwrap();
}

#[test]
fn directories_are_created_listed_and_removed() {
    let folder = Folder::new();
    task::block_on(async {
        let deep = folder.0.join("a").join("b");
        fs::create_dir_all(&deep).await?;
        assert!(deep.is_dir().await && deep.exists().await && !deep.is_file().await);
        for name in ["one", "two"] {
            fs::write(deep.join(name), name).await?;
        }
        let mut names = Vec::new();
        let mut entries = deep.read_dir().await?;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            assert!(entry.file_type().await?.is_file());
            assert_eq!(entry.metadata().await?.len(), 3);
            assert_eq!(entry.path(), deep.join(entry.file_name()));
            names.push(entry.file_name());
        }
        names.sort();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(fs::copy(deep.join("one"), deep.join("three")).await?, 3);
        fs::rename(deep.join("three"), deep.join("four")).await?;
        async_std::os::unix::fs::symlink("four", deep.join("link")).await?;
        assert_eq!(deep.join("link").read_link().await?, Path::new("four"));
        assert!(deep.join("link").symlink_metadata().await?.file_type().is_symlink());
        assert_eq!(deep.join("link").canonicalize().await?, deep.join("four").canonicalize().await?);
        fs::remove_dir_all(folder.0.join("a")).await?;
        assert!(!deep.exists().await);
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn errors_name_the_path_and_keep_their_kind() {
    task::block_on(async {
        let path = "/does/not/exist";
        for error in [
            File::open(path).await.unwrap_err(),
            fs::read(path).await.unwrap_err(),
            fs::remove_file(path).await.unwrap_err(),
            fs::rename(path, "/nor/this").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains(path), "{error}");
        }
        assert_eq!(File::open(path).await.unwrap_err().to_string(), "could not open `/does/not/exist`");
    });
}

#[test]
fn paths_behave_like_the_standard_ones() {
    let path = Path::new("/usr/lib/libc.so.6");
    let std = std::path::Path::new("/usr/lib/libc.so.6");
    assert_eq!(path.file_name(), std.file_name());
    assert_eq!(path.extension(), Some(OsStr::new("6")));
    assert_eq!(path.parent().unwrap(), OsStr::new("/usr/lib"));
    assert_eq!(path.ancestors().count(), std.ancestors().count());
    assert_eq!(path.components().count(), std.components().count());
    assert_eq!(path.iter().next_back(), Some(OsStr::new("libc.so.6")));
    assert_eq!(path.strip_prefix("/usr").unwrap(), Path::new("lib/libc.so.6"));
    assert_eq!(format!("{path:?}"), format!("{std:?}"));
    let owned: PathBuf = ["/usr", "lib"].iter().collect();
    assert_eq!(owned, Path::new("/usr/lib"));
    assert!(owned < PathBuf::from("/usr/lib/x"));
    let boxed = owned.clone().into_boxed_path();
    assert_eq!(boxed.clone().into_path_buf(), owned);
    let back: std::path::PathBuf = owned.clone().into();
    assert_eq!(PathBuf::from(back), owned);
    let shared: std::sync::Arc<Path> = owned.as_path().into();
    assert_eq!(&*shared, &*owned);
    let set = std::collections::HashSet::from([owned]);
    assert!(set.contains(Path::new("/usr/lib")));
}
