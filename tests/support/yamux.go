// A client of MULTIPLEX by hashicorp/yamux itself: says "ok", or what went wrong.
//
// usage: yamux ADDRESS; fived there has the services cat, hello and gone (which says bye and ends at once).
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/ioutil"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

func must(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func same(got, wanted, what string) {
	if got != wanted {
		must(fmt.Errorf("%q instead of %q", got, wanted), what)
	}
}

// What came with the handshake is the multiplexer's too.
type buffered struct {
	net.Conn
	reader io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.reader.Read(p) }

func open(session *yamux.Session, request string) net.Conn {
	stream, err := session.Open()
	must(err, "open")
	must(stream.SetDeadline(time.Now().Add(20*time.Second)), "deadline")
	_, err = stream.Write([]byte(request))
	must(err, "request")
	return stream
}

func ask(session *yamux.Session, request string) string {
	stream := open(session, request)
	all, err := ioutil.ReadAll(stream)
	must(err, request)
	must(stream.Close(), "close")
	return string(all)
}

// Sends and reads at once, so much that the windows grow.
func echo(session *yamux.Session, seed int64, size int) {
	body := make([]byte, size)
	rand.New(rand.NewSource(seed)).Read(body)
	stream := open(session, "cat\r\n")
	go func() {
		_, err := stream.Write(body)
		must(err, "write")
	}()
	got := make([]byte, 5+size)
	_, err := io.ReadFull(stream, got)
	must(err, "read")
	same(string(got[:5]), "+Go\r\n", "cat")
	if sha256.Sum256(got[5:]) != sha256.Sum256(body) {
		must(fmt.Errorf("other bytes came back"), "cat")
	}
	must(stream.Close(), "close")
}

func main() {
	conn, err := net.Dial("tcp", os.Args[1])
	must(err, "dial")
	_, err = conn.Write([]byte("MULTIPLEX\r\n"))
	must(err, "MULTIPLEX")
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	must(err, "reply")
	same(line, "+ Success\r\n", "reply")

	var complaints bytes.Buffer
	config := yamux.DefaultConfig()
	config.LogOutput = &complaints
	session, err := yamux.Client(buffered{conn, reader}, config)
	must(err, "client")
	_, err = session.Ping()
	must(err, "ping")

	// Nobody reads it: it stands still, and the others go on.
	stalled := open(session, "cat\r\n")
	_, err = stalled.Write(make([]byte, 200000))
	must(err, "stalled")
	for round := 0; round < 3; round++ {
		var group sync.WaitGroup
		for i := 0; i < 20; i++ {
			group.Add(1)
			go func(seed int64) {
				defer group.Done()
				echo(session, seed, 700000)
			}(int64(round*100 + i))
		}
		group.Wait()
	}
	echo(session, 7, 20000000)
	same(ask(session, "hello\r\n"), "+Go\r\nhello\n", "hello")
	same(ask(session, "nothing\r\n"), "-Service not available\r\n", "nothing")

	// A service that ends while its client still sends.
	gone := open(session, "gone\r\n")
	all, err := ioutil.ReadAll(gone)
	must(err, "gone")
	same(string(all), "+Go\r\nbye\n", "gone")
	_, err = gone.Write(make([]byte, 1000000))
	must(err, "to a service that has gone")
	must(gone.Close(), "close")
	must(stalled.Close(), "close")

	for end := time.Now().Add(20 * time.Second); session.NumStreams() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			must(fmt.Errorf("%d are left", session.NumStreams()), "streams")
		}
	}
	must(session.Close(), "close")
	// A window update that crosses our FIN is worth a warning to it, and no more.
	for _, line := range strings.Split(complaints.String(), "\n") {
		if line != "" && !strings.Contains(line, "frame for missing stream: Vsn:0 Type:1") {
			must(fmt.Errorf("%s", line), "yamux complains")
		}
	}
	fmt.Println("ok")
}
