// An HTTP server that starts in no time, for tests and figures. It says who answered.
//
// DELAY: how long it waits before it listens. EXIT: it ends with this status instead. Paths: /slow?for=1s answers
// after that time; everything else at once. SIGTERM: no new connections; those in flight are served.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if status, err := strconv.Atoi(os.Getenv("EXIT")); err == nil {
		fmt.Fprintln(os.Stderr, "cannot start: no configuration")
		os.Exit(status)
	}
	delay, _ := time.ParseDuration(os.Getenv("DELAY"))
	time.Sleep(delay)
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(answer)}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		<-told
		server.Shutdown(context.Background())
		close(ended)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ended
}

func answer(w http.ResponseWriter, r *http.Request) {
	if wait, err := time.ParseDuration(r.URL.Query().Get("for")); err == nil {
		time.Sleep(wait)
	}
	body, _ := io.ReadAll(r.Body)
	name, _ := os.Hostname()
	fmt.Fprintf(w, "%s %s %s %s %d\n", name, r.Method, r.Host, r.URL.Path, len(body))
}
