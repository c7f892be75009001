// A computer that offers a service through MULTIPLEX, by hashicorp/yamux itself. It greets each
// client by the name of its user, and sends back what that says. It ends when its input does, and
// says "ok", or what went wrong.
//
// usage: yamux_offer ADDRESS USER PASSWORD SERVICE
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/ioutil"
	"net"
	"os"
	"strings"

	"github.com/hashicorp/yamux"
)

func must(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(reader *bufio.Reader, wanted string) {
	got := make([]byte, len(wanted))
	_, err := io.ReadFull(reader, got)
	must(err, wanted)
	if string(got) != wanted {
		must(fmt.Errorf("%q instead of %q", got, wanted), "reply")
	}
}

// What came with the replies is the multiplexer's too.
type buffered struct {
	net.Conn
	reader io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.reader.Read(p) }

func serve(stream net.Conn, service string) {
	defer stream.Close()
	reader := bufio.NewReader(stream)
	line, err := reader.ReadString('\n')
	must(err, "the first line")
	words := strings.SplitN(strings.TrimSuffix(line, "\r\n"), " ", 4)
	if len(words) != 4 || words[0] != service || net.ParseIP(words[1]) == nil {
		must(fmt.Errorf("%q", line), "the first line")
	}
	user := words[3]
	if user == "-" {
		user = "nobody"
	}
	_, err = stream.Write([]byte("hello " + user))
	must(err, "greeting")
	_, err = io.Copy(stream, reader)
	must(err, "echo")
}

func main() {
	address, user, password, service := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	conn, err := net.Dial("tcp", address)
	must(err, "dial")
	_, err = fmt.Fprintf(conn, "AUTH\r\n%s\r\n%s\r\nMULTIPLEX\r\n", user, password)
	must(err, "requests")
	reader := bufio.NewReader(conn)
	expect(reader, "+ Success\r\nEnter Username: Enter Password: ")
	expect(reader, "Authentication as "+user+" successful\r\n+ Success\r\n")

	var complaints bytes.Buffer
	config := yamux.DefaultConfig()
	config.LogOutput = &complaints
	session, err := yamux.Client(buffered{conn, reader}, config)
	must(err, "client")
	offer, err := session.Open()
	must(err, "open")
	_, err = fmt.Fprintf(offer, "OFFER\r\n%s\r\n", service)
	must(err, "OFFER")
	expect(bufio.NewReader(offer), "+ Success\r\nOffering "+service+"\r\n")
	go func() {
		for {
			stream, err := session.Accept()
			if err != nil {
				return
			}
			go serve(stream, service)
		}
	}()
	_, err = ioutil.ReadAll(os.Stdin)
	must(err, "input")
	must(offer.Close(), "close")
	must(session.Close(), "close")
	for _, line := range strings.Split(complaints.String(), "\n") {
		if line != "" && !strings.Contains(line, "frame for missing stream: Vsn:0 Type:1") {
			must(fmt.Errorf("%s", line), "yamux complains")
		}
	}
	fmt.Println("ok")
}
