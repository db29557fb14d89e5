package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

// serveHTTP serves HTTP on a free port of 127.0.0.1, and first prints "ready PORT". As in
// src/bin/http.rs, a response has a body of the given size, and the headers Content-Length and
// Date. serveHTTP does not return. If it fails, it prints the error and exits with status 1.
func serveHTTP(bytes int) {
	body := make([]byte, bytes)
	for at := range body {
		body[at] = 'x'
	}
	length := []string{strconv.Itoa(bytes)}
	answer := func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header["Content-Length"] = length
		// A nil value prevents net/http from deriving this header from the body.
		header["Content-Type"] = nil
		// The error is ignored, because clients close their connections.
		_, _ = w.Write(body)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err == nil {
		fmt.Printf("ready %d\n", listener.Addr().(*net.TCPAddr).Port)
		err = http.Serve(listener, http.HandlerFunc(answer))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
