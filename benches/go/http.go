package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

// serveHTTP answers as src/bin/http.rs does: a body of the given size, its length, the date.
func serveHTTP(bytes int) {
	body := make([]byte, bytes)
	for at := range body {
		body[at] = 'x'
	}
	length := []string{strconv.Itoa(bytes)}
	answer := func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header["Content-Length"] = length
		// Not there, rather than guessed from the body.
		header["Content-Type"] = nil
		// A client that goes away is no news.
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
