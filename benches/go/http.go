package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

// serveHTTP answers like src/bin/http.rs: a body of the given size, with the headers Content-Length and Date.
func serveHTTP(bytes int) {
	body := make([]byte, bytes)
	for at := range body {
		body[at] = 'x'
	}
	length := []string{strconv.Itoa(bytes)}
	answer := func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header["Content-Length"] = length
		// A nil value keeps net/http from guessing the type from the body.
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
