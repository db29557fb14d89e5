# Functions that place, run and check the programs of async-std's package. conformance.sh sources
# this file, sets the variables that the functions use, and opens a FIFO from which no byte arrives
# as descriptor 9.
# shellcheck shell=bash disable=SC2154

# block FILE N: prints the Nth Rust block of a page of the book. Removes the `# ` of the lines that
# rustdoc hides.
block() {
    awk -v wanted="$2" '/^```rust/ { inside = ++count == wanted; next } /^```/ { inside = 0 } inside' "$source/docs/src/$1" |
        sed -e 's/^# //' -e '/^#$/d'
}

# place_programs: writes all programs to $run/src/bin, where cargo finds them. Adds the missing
# `main` to the book's servers and clients.
place_programs() {
    local bin=$run/src/bin name
    for name in "${programs[@]}"; do
        if [[ -e $source/examples/$name.rs ]]; then rename "$source/examples/$name.rs" >"$bin/$name.rs"; fi
    done
    for name in main client server; do
        rename "$source/examples/a-chat/$name.rs" >"$bin/a-chat/$name.rs"
    done
    awk '/^```rust/ { inside = !done; next } /^```/ { inside = 0; done = done || text } inside { text = 1; print }' "$source/README.md" |
        rename >"$bin/readme.rs"
    local runs='fn main() { run().unwrap() }' serves='fn main() { task::block_on(accept_loop("127.0.0.1:8080")).unwrap() }'
    { block tutorial/accept_loop.md 4; echo "$runs"; } | rename >"$bin/book-accept-loop.rs"
    { block tutorial/receiving_messages.md 1; echo "$serves"; } | rename >"$bin/book-receiving-messages.rs"
    { block tutorial/all_together.md 1; echo "$runs"; } | rename >"$bin/book-all-together.rs"
    { block tutorial/handling_disconnection.md 3; echo "$runs"; } | rename >"$bin/book-chat.rs"
    { block tutorial/implementing_a_client.md 1; echo "$runs"; } | rename >"$bin/book-client.rs"
    block concepts/tasks.md 4 | rename >"$bin/book-block-on.rs"
    block concepts/tasks.md 5 | rename >"$bin/book-panic.rs"
    # This server is not from async-std. It answers one request, closes the connection and ends.
    cat >"$bin/answer.rs" <<RUST
use std::io::{Read, Write};

fn main() -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind("$host:$port")?;
    println!("Listening");
    let (mut stream, _) = listener.accept()?;
    stream.read(&mut [0; 1024])?;
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nanswered")
}
RUST
}

# await FILE TEXT: waits until FILE contains TEXT, for at most 20 s. Prints the file if it fails.
await() {
    local i
    for ((i = 0; i < 400; i++)); do
        if grep -qF -- "$2" "$1" 2>/dev/null; then return; fi
        sleep 0.05
    done
    printf 'no "%s" in %s:\n' "$2" "$1"
    cat "$1"
    return 1
}

# begin NAME ARGUMENT...: runs the program in the background for at most 90 s, with its output in
# $here/NAME.
begin() {
    timeout --kill-after=5 90 "$bin/$1" "${@:2}" >"$here/$1" 2>&1 &
}

# finish NAME ARGUMENT...: runs the program to its end, for at most 30 s, with its output in
# $here/NAME and on standard output. Returns its exit status.
finish() {
    timeout --kill-after=5 30 "$bin/$1" "${@:2}" 2>&1 | tee "$here/$1"
    return "${PIPESTATUS[0]}"
}

# reachable HOST: waits until a program listens on the port, for at most 20 s.
reachable() {
    local i
    for ((i = 0; i < 400; i++)); do
        if (exec 3<>"/dev/tcp/$1/$port") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "no socket listens on $1 port $port"
    return 1
}

# echoes HOST: checks that the server sends a line back within 20 s.
echoes() {
    local line=
    { printf 'to %s\n' "$1" >&3 && read -r -t 20 line <&3; } 3<>"/dev/tcp/$1/$port"
    [[ $line == "to $1" ]]
}

# says LINE REPLY: sends LINE, and checks that the reply, up to the end of the stream, is REPLY.
# Waits for at most 20 s.
says() {
    # shellcheck disable=SC2016
    timeout 20 bash -c 'exec 3<>"/dev/tcp/$1/$2"; printf %s "$3" >&3; cat <&3' _ "$host" "$port" "$1" >"$here/answer"
    [[ $(tr -d '\r' <"$here/answer") == "$2" ]]
}

# chat SERVER CLIENT ARGUMENT...: checks that a message of each of two clients reaches the other,
# with the name of its sender. SERVER may contain arguments.
chat() {
    local i
    mkfifo "$here/alice.in" "$here/bob.in"
    exec 4<>"$here/alice.in" 5<>"$here/bob.in"
    # shellcheck disable=SC2086
    begin $1
    reachable "$host" || return
    timeout 60 "$bin/$2" "${@:3}" <&4 >"$here/alice" 2>&1 &
    timeout 60 "$bin/$2" "${@:3}" <&5 >"$here/bob" 2>&1 &
    echo alice >&4
    echo bob >&5
    # A message to an unknown name is lost, and no program reports when the server knows a name.
    for ((i = 0; i < 100; i++)); do
        echo 'bob, carol: good morning' >&4
        sleep 0.1
        if grep -qx 'from alice: good morning' "$here/bob"; then break; fi
    done
    echo 'alice: and to you' >&5
    await "$here/bob" 'from alice: good morning' && await "$here/alice" 'from bob: and to you'
}

# drive NAME: runs a program and checks its behaviour. Its files are in $out/NAME.
drive() (
    here=$out/$1
    bin=$scratch/target/debug
    mkdir -p "$here"
    cd "$here" || exit
    # shellcheck disable=SC2046
    trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
    [[ -x $bin/$1 ]] || { echo "does not build: see build.txt"; exit 1; }
    case $1 in
    readme | hello-world) [[ $(finish "$1") == 'Hello, world!' ]] ;;
    task-name) [[ $(finish "$1") == 'My name is Some("my-task")' ]] ;;
    task-local) [[ $(finish "$1") == $'var = 1\nvar = 2' ]] ;;
    logging) finish "$1" | grep -F 'Hello world!' ;;
    stdin-echo) [[ $(printf 'one\ntwo\nthree' | finish "$1") == $'one\ntwo\nthree' ]] ;;
    stdin-timeout)
        echo typed | finish "$1" | grep -F 'line = "typed\n"' || exit
        # If no line arrives, the program gives up after five seconds.
        SECONDS=0
        if finish "$1" <&9; then exit 1; fi
        grep -F TimedOut "$1" && ((SECONDS >= 4 && SECONDS < 20))
        ;;
    socket-timeouts)
        begin answer
        await answer Listening || exit
        finish "$1" | grep -F answered || exit
        # tcp-echo does not end the stream, so the client's read to the end must time out.
        begin tcp-echo
        await tcp-echo Listening || exit
        SECONDS=0
        if finish "$1"; then exit 1; fi
        grep -F TimedOut "$1" && ((SECONDS >= 4 && SECONDS < 20))
        ;;
    tcp-echo | udp-echo)
        begin "$1"
        await "$1" Listening || exit
        if [[ $1 == tcp-echo ]]; then
            echoes "$host" && echoes "$host" && await "$1" 'Accepted from'
        else
            finish udp-client | grep -Fx -- '-> hello world' && await "$1" 'Sent 11 out of 11 bytes'
        fi
        ;;
    tcp-client | udp-client)
        begin "${1%client}echo"
        await "${1%client}echo" Listening || exit
        finish "$1" | grep -Fx -- '-> hello world'
        ;;
    tcp-ipv4-and-6-echo)
        if ! grep -q '^0*1 ' /proc/net/if_inet6; then
            echo 'this machine has no IPv6: not run'
            exit 0
        fi
        begin "$1"
        await "$1" 'Listening on [::1]' || exit
        echoes "$host" && echoes ::1 && echoes "$host"
        ;;
    a-chat) chat "$1 server" "$1" client ;;
    book-all-together | book-chat) chat "$1" book-client ;;
    book-accept-loop)
        # The server accepts a connection and closes it.
        begin "$1"
        reachable "$host" && says '' '' && says '' ''
        ;;
    book-receiving-messages)
        begin "$1"
        reachable "$host" || exit
        (printf 'alice\nbob: hi\n' >&3) 3<>"/dev/tcp/$host/$port"
        await "$1" 'name = alice'
        ;;
    book-block-on) finish "$1" ;;
    book-panic)
        if finish "$1"; then exit 1; fi
        grep -F "panicked" "$1"
        ;;
    *)
        echo "there is no driver for $1"
        exit 1
        ;;
    esac
)
