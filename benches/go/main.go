// Command echo-go is the echo server in Go. It prints "ready PORT", ignores its input, and exits
// when the input ends.
//
// src/bin/server.rs executes this program with its own arguments, except --runtime, --cpu and
// --batch, which it handles itself. With -micro CASE, the program instead makes one measurement of
// src/bin/micro.rs. With -http BYTES, it serves HTTP as src/bin/http.rs does. If a server fails,
// the program prints the error to standard error and exits with status 1.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// readDeadline is the time limit of a read in the modes deadline and timeout.
const readDeadline = 30 * time.Second

var (
	mode    = flag.String("mode", "echo", "handling of a connection: echo, deadline, timeout, churn or readable")
	workers = flag.Int("workers", 1, "GOMAXPROCS")
	buffer  = flag.Int("buffer", 4096, "size of a connection's buffer in bytes")
	inMain  = flag.Bool("serve-in-block-on", false, "serve the connection in the accepting goroutine")
	hogs    = flag.Int("hogs", 0, "number of goroutines that compete with the echo")
	hog     = flag.String("hog", "spin", "behaviour of these goroutines: spin, yield or sleep")
	workUs  = flag.Uint64("work-us", 0, "additional user CPU time per request in microseconds")
	micro   = flag.String("micro", "", "measure this case of src/bin/micro.rs and exit")
	bytes   = flag.Int("http", -1, "serve HTTP, with bodies of this many bytes")
)

func main() {
	flag.Parse()
	runtime.GOMAXPROCS(*workers)
	if *micro != "" {
		measure(*micro)
		return
	}
	if *bytes >= 0 {
		serveHTTP(*bytes)
	}
	if !slices.Contains([]string{"echo", "deadline", "timeout", "churn", "readable"}, *mode) {
		fail("unknown mode " + *mode)
	}
	if !slices.Contains([]string{"spin", "yield", "sleep"}, *hog) {
		fail("unknown behaviour " + *hog)
	}
	work := calibrated(*workUs)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	for range *hogs {
		go hogging()
	}
	go func() {
		// The end of the input ends the process.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Printf("ready %d\n", listener.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail(err)
		}
		switch {
		case *mode == "readable":
			go onDemand(conn.(*net.TCPConn), work)
		case *inMain:
			serve(conn, work)
		default:
			go serve(conn, work)
		}
	}
}

// fail prints the reason to standard error and ends the process.
func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}

// serve answers the messages of a connection until it ends, or one message in the mode churn.
func serve(conn net.Conn, work uint64) {
	defer conn.Close()
	buf := make([]byte, *buffer)
	for {
		if *mode == "deadline" || *mode == "timeout" {
			if conn.SetReadDeadline(time.Now().Add(readDeadline)) != nil {
				return
			}
		}
		count, err := conn.Read(buf)
		if err != nil {
			return
		}
		burn(work)
		if _, err := conn.Write(buf[:count]); err != nil || *mode == "churn" {
			return
		}
	}
}

// onDemand serves a connection, and has a buffer only while it answers a message. Go has no call
// that waits until a connection is readable, so onDemand peeks at the first byte in a raw read.
func onDemand(conn *net.TCPConn, work uint64) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	for err == nil {
		err = raw.Read(func(fd uintptr) bool {
			var first [1]byte
			_, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return err != syscall.EAGAIN
		})
		if err == nil {
			err = once(conn, work)
		}
	}
}

// once answers one message.
func once(conn net.Conn, work uint64) error {
	buf := make([]byte, *buffer)
	count, err := conn.Read(buf)
	if err != nil {
		return err
	}
	burn(work)
	_, err = conn.Write(buf[:count])
	return err
}

// hogging competes with the echo, in the way that the flag -hog sets.
func hogging() {
	for {
		switch *hog {
		case "spin":
			for {
			}
		case "sleep":
			pause := syscall.Timespec{Nsec: 100_000_000}
			_ = syscall.Nanosleep(&pause, nil)
		}
		runtime.Gosched()
	}
}

// sink prevents the compiler from removing the loop of burn.
var sink uint64

// calibrated returns the number of turns of burn that take the given CPU time.
func calibrated(microseconds uint64) uint64 {
	if microseconds == 0 {
		return 0
	}
	const trial = 2_000_000
	best := cost(1, func() { burn(trial) })
	for range 4 {
		best = min(best, cost(1, func() { burn(trial) }))
	}
	return trial * microseconds * 1000 / max(uint64(best), 1)
}

// burn uses the CPU for a number of turns.
//
//go:noinline
func burn(turns uint64) {
	state := uint64(1)
	for range turns {
		state = state*6364136223846793005 + 1
	}
	if state == 0 {
		sink = state
	}
}
