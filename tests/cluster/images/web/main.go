// An HTTP server that starts in no time, for tests and figures. It says who answered, and since when it listens.
//
// DELAY: how long it waits before it listens. PORTS: where, by default "8080". EXIT: it ends with this status instead.
// READY: status of /ready at first, by default 200. LATE_PORT: where it listens, too, once /ready answers 200.
//
// Paths: /slow?for=1s answers after that time. /ready answers its status, and PUT /ready?status=503 sets it. /probes is the
// number of GETs of /ready by zenvoy. A POST of gRPC's health check, over HTTP/2 without TLS, answers SERVING while /ready
// answers 200. Everything else is answered at once. `web check` ends with 0 if /ready answers 200, as a probe that runs a
// command. SIGTERM: no new connections; those in flight are served.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	status, probes atomic.Int64
	since          int64
	late           sync.Once
	server         http.Server
)

func main() {
	ports := strings.Fields(cmp.Or(os.Getenv("PORTS"), "8080"))
	if len(os.Args) > 1 && os.Args[1] == "check" {
		check(ports[0])
		return
	}
	if status, err := strconv.Atoi(os.Getenv("EXIT")); err == nil {
		fmt.Fprintln(os.Stderr, "cannot start: no configuration")
		os.Exit(status)
	}
	first, _ := strconv.Atoi(cmp.Or(os.Getenv("READY"), "200"))
	delay, _ := time.ParseDuration(os.Getenv("DELAY"))
	time.Sleep(delay)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server.Handler, server.Protocols = http.HandlerFunc(route), &protocols
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		<-told
		server.Shutdown(context.Background())
		close(ended)
	}()
	status.Store(int64(first))
	for _, port := range ports {
		listen(port)
	}
	since = time.Now().UnixNano()
	setReady(first)
	<-ended
}

func listen(port string) {
	listener, err := net.Listen("tcp", ":"+port)
	exitOn(err)
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			exitOn(err)
		}
	}()
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func route(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /ready":
		ready(w, r)
	case "PUT /ready":
		code, _ := strconv.Atoi(r.URL.Query().Get("status"))
		setReady(code)
	case "GET /probes":
		fmt.Fprint(w, probes.Load())
	case "POST /grpc.health.v1.Health/Check":
		health(w, r)
	default:
		answer(w, r)
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	if wait, err := time.ParseDuration(r.URL.Query().Get("for")); err == nil {
		time.Sleep(wait)
	}
	body, _ := io.ReadAll(r.Body)
	name, _ := os.Hostname()
	w.Header().Set("Listening-Since", strconv.FormatInt(since, 10))
	fmt.Fprintf(w, "%s %s %s %s %d\n", name, r.Method, r.Host, r.URL.Path, len(body))
}

func ready(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.UserAgent(), "kube-probe/zenvoy") {
		probes.Add(1)
	}
	w.WriteHeader(int(status.Load()))
}

func setReady(code int) {
	status.Store(int64(code))
	if port := os.Getenv("LATE_PORT"); port != "" && code == http.StatusOK {
		late.Do(func() { listen(port) })
	}
}

// health answers grpc.health.v1.Health/Check: one message of two bytes, field 1 of the HealthCheckResponse.
func health(w http.ResponseWriter, r *http.Request) {
	serving := byte(2)
	if status.Load() == http.StatusOK {
		serving = 1
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Write([]byte{0, 0, 0, 0, 2, 8, serving})
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

func check(port string) {
	answer, err := http.Get("http://127.0.0.1:" + port + "/ready")
	exitOn(err)
	if answer.StatusCode != http.StatusOK {
		exitOn(fmt.Errorf("/ready answers %d", answer.StatusCode))
	}
}
