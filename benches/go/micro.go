package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// measure makes one measurement of src/bin/micro.rs. It prints the CPU time per operation in
// nanoseconds, and then the median lateness in microseconds for the case sleepers, and -1 for other
// cases. For an unknown case, it prints "none".
func measure(name string) {
	late := -1.0
	var ns float64
	switch {
	case name == "spawn-join":
		const tasks = 100_000
		spawnJoin(tasks)
		ns = cost(tasks, func() { spawnJoin(tasks) })
	case name == "yield":
		ns = yields(64)
	case strings.HasPrefix(name, "yield-"):
		tasks, err := strconv.Atoi(name[len("yield-"):])
		if err != nil {
			fmt.Println("none")
			return
		}
		ns = yields(tasks)
	case name == "ping-pong":
		ns = pingPong()
	case name == "arm-and-cancel":
		const timers = 500_000
		ns = cost(timers, func() {
			for range timers {
				time.NewTimer(time.Hour).Stop()
			}
		})
	case name == "deadline-later":
		ns = deadlineLater()
	case name == "sleepers":
		ns, late = sleepers()
	default:
		fmt.Println("none")
		return
	}
	fmt.Println(ns, late)
}

// cpu returns the CPU time of the process in nanoseconds.
func cpu() float64 {
	var now syscall.Timespec
	const processCPUTime = 2 // CLOCK_PROCESS_CPUTIME_ID; package syscall does not define it
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processCPUTime, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		fmt.Fprintln(os.Stderr, errno)
		os.Exit(1)
	}
	return float64(now.Nano())
}

// cost returns the CPU time of work in nanoseconds per operation. work performs count operations.
func cost(count int, work func()) float64 {
	before := cpu()
	work()
	return (cpu() - before) / float64(count)
}

// spawnJoin starts goroutines and waits until they have ended.
func spawnJoin(tasks int) {
	var all sync.WaitGroup
	all.Add(tasks)
	for range tasks {
		go all.Done()
	}
	all.Wait()
}

// yields returns the cost of a yield with the given number of runnable goroutines.
func yields(tasks int) float64 {
	turns := 1_280_000 / tasks
	return cost(tasks*turns, func() {
		var all sync.WaitGroup
		for range tasks {
			all.Add(1)
			go func() {
				defer all.Done()
				for range turns {
					runtime.Gosched()
				}
			}()
		}
		all.Wait()
	})
}

// pingPong returns the cost of a message from one goroutine to another and back.
func pingPong() float64 {
	const rounds = 300_000
	to, from := make(chan int, 1), make(chan int, 1)
	go func() {
		for message := range to {
			from <- message
		}
	}()
	ns := cost(rounds, func() {
		for message := range rounds {
			to <- message
			<-from
		}
	})
	close(to)
	return ns
}

// deadlineLater returns the cost of moving a read deadline to a later time.
func deadlineLater() float64 {
	const moves = 2_000_000
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	at := time.Now().Add(time.Minute)
	return cost(moves, func() {
		for range moves {
			at = at.Add(100)
			_ = conn.SetReadDeadline(at)
		}
	})
}

// sleepers returns the cost of a sleep of many goroutines, and the median lateness in microseconds.
func sleepers() (float64, float64) {
	const count = 100_000
	start := time.Now().Add(500 * time.Millisecond)
	late := make([]time.Duration, count)
	ns := cost(count, func() {
		var all sync.WaitGroup
		for n := range count {
			at := start.Add(time.Duration(n*7919%100_000*10) * time.Microsecond)
			all.Add(1)
			go func() {
				defer all.Done()
				time.Sleep(time.Until(at))
				late[n] = time.Since(at)
			}()
		}
		all.Wait()
	})
	slices.Sort(late)
	return ns, float64(late[count/2].Nanoseconds()) / 1e3
}
