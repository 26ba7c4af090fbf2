// httpclient sends the requests of a case by Go's own client, and prints the answers. Arguments: the URL and the case.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
)

type stream struct{ io.Reader }

func main() {
	url, body := os.Args[1], strings.Repeat("ab", 50_000)
	switch os.Args[2] {
	case "get":
		send("GET", url+"/a/%7Efoo/./b%41?q=%20+&x=%C3%BC", nil)
	case "head":
		send("HEAD", url+"/", nil)
	case "post":
		send("POST", url+"/", strings.NewReader(body))
	case "stream":
		send("PUT", url+"/", stream{strings.NewReader(body)})
	case "delete":
		send("DELETE", url+"/", nil)
	case "chunked":
		send("GET", url+"/chunked", nil)
	case "headers":
		send("GET", url+"/", nil, "X-CamelCase", "Yes", "x_under", "1", "Cookie", "a=1; b=2", "X-Latin", "Zo\xeb")
	case "expect":
		send("POST", url+"/", strings.NewReader(body), "Expect", "100-continue")
	case "twice":
		send("GET", url+"/first", nil)
		send("POST", url+"/second", strings.NewReader("second"))
	}
}

func send(method, url string, body io.Reader, headers ...string) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		log.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header[pair[0]] = []string{pair[1]}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	lines := []string{}
	for name, values := range response.Header {
		lines = append(lines, fmt.Sprintln(name, values))
	}
	slices.Sort(lines)
	fmt.Println(response.Status, lines, response.Trailer, string(answer))
}
