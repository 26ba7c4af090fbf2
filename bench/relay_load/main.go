// Both ends of the traffic that the relays are measured with; each use is a process of its own, of one thread, and takes as
// little of the machine as it can: raw epoll for the ping-pong, no goroutines.
//
//	load serve ADDRESS              a connection's first byte says what becomes of the rest: echoed, or discarded and
//	                                its end answered with one byte
//	load bulk ADDRESS BYTES         send so many; prints the seconds until their end was answered
//	load ping ADDRESS SECONDS CONNS 256 bytes there and back on each, again and again; prints the median and the p99 in
//	                                microseconds, and how many there were a second
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sort"
	"strconv"
	"syscall"
	"time"
)

const (
	message    = 256
	sayEcho    = 'e'
	sayDiscard = 'd'
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func write(fd int, data []byte) {
	if must(syscall.Write(fd, data)) != len(data) {
		panic("a small message does not fit into an empty socket")
	}
}

// fdOf gives a descriptor that Go's own poller knows nothing of, blocking or not.
func fdOf(conn net.Conn, nonblock bool) int {
	file := must(conn.(*net.TCPConn).File())
	fd := must(syscall.Dup(int(file.Fd())))
	file.Close()
	conn.Close()
	if err := syscall.SetNonblock(fd, nonblock); err != nil {
		panic(err)
	}
	return fd
}

func dial(address string, say byte) int {
	conn := must(net.Dial("tcp", address))
	must(conn.Write([]byte{say}))
	return fdOf(conn, false)
}

func watch(epoll, fd int) {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		panic(err)
	}
}

// wait calls ready for every descriptor that has something to read.
func wait(epoll int, events []syscall.EpollEvent, ready func(fd int)) {
	n, err := syscall.EpollWait(epoll, events, 1000)
	if err != nil && err != syscall.EINTR {
		panic(err)
	}
	for i := 0; i < n; i++ {
		ready(int(events[i].Fd))
	}
}

func echoAll(epoll int) {
	buffer := make([]byte, 1<<16)
	events := make([]syscall.EpollEvent, 64)
	for {
		wait(epoll, events, func(fd int) {
			n, err := syscall.Read(fd, buffer)
			if n <= 0 || err != nil {
				syscall.Close(fd)
				return
			}
			write(fd, buffer[:n])
		})
	}
}

func discard(fd int) {
	runtime.LockOSThread()
	defer syscall.Close(fd)
	buffer := make([]byte, 1<<20)
	for {
		if n, err := syscall.Read(fd, buffer); n <= 0 || err != nil {
			syscall.Write(fd, []byte{1})
			return
		}
	}
}

func serve(address string) {
	listener := must(net.Listen("tcp", address))
	epoll := must(syscall.EpollCreate1(0))
	go func() {
		runtime.LockOSThread()
		echoAll(epoll)
	}()
	for {
		conn := must(listener.Accept())
		go func() {
			first := make([]byte, 1)
			if _, err := conn.Read(first); err != nil {
				conn.Close()
			} else if first[0] == sayEcho {
				watch(epoll, fdOf(conn, false))
			} else {
				discard(fdOf(conn, false))
			}
		}()
	}
}

func bulk(address string, bytes int) {
	fd := dial(address, sayDiscard)
	buffer := make([]byte, 1<<20)
	begin := time.Now()
	for left := bytes; left > 0; {
		if left < len(buffer) {
			buffer = buffer[:left]
		}
		left -= must(syscall.Write(fd, buffer))
	}
	syscall.Shutdown(fd, syscall.SHUT_WR)
	if must(syscall.Read(fd, buffer)) != 1 {
		panic("no answer")
	}
	fmt.Println(time.Since(begin).Seconds())
}

func ping(address string, seconds float64, conns int) {
	epoll := must(syscall.EpollCreate1(0))
	begin := map[int]time.Time{}
	buffer := make([]byte, message)
	for i := 0; i < conns; i++ {
		fd := dial(address, sayEcho)
		watch(epoll, fd)
		begin[fd] = time.Now()
		write(fd, buffer)
	}
	var times []time.Duration
	events := make([]syscall.EpollEvent, conns)
	for end := time.Now().Add(time.Duration(seconds * 1e9)); len(begin) > 0; {
		wait(epoll, events, func(fd int) {
			if must(syscall.Read(fd, buffer)) != message {
				panic("not a whole message")
			}
			now := time.Now()
			times = append(times, now.Sub(begin[fd]))
			if now.After(end) {
				syscall.Close(fd)
				delete(begin, fd)
				return
			}
			begin[fd] = now
			write(fd, buffer)
		})
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	micros := func(part float64) float64 {
		return float64(times[int(float64(len(times))*part)].Nanoseconds()) / 1000
	}
	fmt.Println(micros(0.5), micros(0.99), float64(len(times))/seconds)
}

func main() {
	switch args := os.Args; args[1] {
	case "serve":
		serve(args[2])
	case "bulk":
		bulk(args[2], must(strconv.Atoi(args[3])))
	case "ping":
		runtime.LockOSThread()
		ping(args[2], must(strconv.ParseFloat(args[3], 64)), must(strconv.Atoi(args[4])))
	}
}
