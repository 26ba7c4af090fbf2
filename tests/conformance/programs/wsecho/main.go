// wsecho echoes the messages of WebSocket clients, compressed if the client offers it. Argument: the port.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"unicode/utf8"

	"github.com/coder/websocket"
)

func main() {
	options := websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, InsecureSkipVerify: true}
	server := http.Server{Addr: "127.0.0.1:" + os.Args[1]}
	server.Handler = http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		connection, err := websocket.Accept(response, request, &options)
		if err != nil {
			return
		}
		defer connection.CloseNow()
		connection.SetReadLimit(-1)
		for err == nil {
			err = echo(request.Context(), connection)
		}
	})
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func echo(ctx context.Context, connection *websocket.Conn) error {
	kind, reader, err := connection.Reader(ctx)
	if err != nil {
		return err
	}
	message, err := io.ReadAll(reader)
	if err != nil {
		return err
	}
	if kind == websocket.MessageText && !utf8.Valid(message) {
		return connection.Close(websocket.StatusInvalidFramePayloadData, "not UTF-8")
	}
	return connection.Write(ctx, kind, message)
}
