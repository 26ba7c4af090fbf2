// What zenvoy's rivals are: two io.Copy, which Go turns into splice(2). Usage: relay LISTEN TARGET
package main

import (
	"io"
	"net"
	"os"
)

func copyHalf(to, from *net.TCPConn, done chan<- struct{}) {
	io.Copy(to, from)
	to.CloseWrite()
	done <- struct{}{}
}

func relay(client *net.TCPConn, target string) {
	defer client.Close()
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	upstream := conn.(*net.TCPConn)
	defer upstream.Close()
	done := make(chan struct{}, 2)
	go copyHalf(upstream, client, done)
	go copyHalf(client, upstream, done)
	<-done
	<-done
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go relay(client.(*net.TCPConn), os.Args[2])
	}
}
