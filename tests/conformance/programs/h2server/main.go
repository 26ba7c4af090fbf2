// h2server serves HTTP/2 without TLS by net/http, for h2spec. Argument: the port.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	answer := http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(response, "hello")
	})
	server := http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: answer, Protocols: &protocols}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}
