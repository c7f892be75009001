// yamux: hashicorp/yamux (the reference implementation) under the same little protocol as
// ../rust/src/yam.rs: 'E'+u64 = echo nine bytes and close, 'S'+u64 = send that many zeros and close.
//
//	yamux serve ADDR | lat ADDR IN_FLIGHT SECS | bulk ADDR STREAMS BYTES
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

func cfg() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.EnableKeepAlive = false
	c.AcceptBacklog = 1024
	return c
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func cpu() float64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func handle(s *yamux.Stream) {
	defer s.Close()
	q := make([]byte, 9)
	if _, err := io.ReadFull(s, q); err != nil {
		return
	}
	if q[0] == 'E' {
		s.Write(q)
		return
	}
	left := binary.BigEndian.Uint64(q[1:])
	z := make([]byte, 64<<10)
	for left > 0 {
		k := uint64(len(z))
		if left < k {
			k = left
		}
		if _, err := s.Write(z[:k]); err != nil {
			return
		}
		left -= k
	}
}

func main() {
	addr := os.Args[2]
	if os.Args[1] == "serve" {
		l, err := net.Listen("tcp", addr)
		die(err)
		for {
			c, err := l.Accept()
			die(err)
			go func() {
				ses, err := yamux.Server(c, cfg())
				if err != nil {
					return
				}
				for {
					s, err := ses.AcceptStream()
					if err != nil {
						return
					}
					go handle(s)
				}
			}()
		}
	}
	if n := os.Getenv("YG_PROCS"); n != "" {
		k, _ := strconv.Atoi(n)
		runtime.GOMAXPROCS(k)
	}
	c, err := net.Dial("tcp", addr)
	die(err)
	ses, err := yamux.Client(c, cfg())
	die(err)
	n, _ := strconv.Atoi(os.Args[3])
	c0 := cpu()
	var wg sync.WaitGroup
	var mu sync.Mutex
	if os.Args[1] == "lat" {
		secs, _ := strconv.ParseFloat(os.Args[4], 64)
		on := time.Now().Add(200 * time.Millisecond)
		off := on.Add(time.Duration(secs * 1e9))
		var all []float64
		errs := 0
		for i := 0; i < n; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				var l []float64
				q := []byte("E12345678")
				b := make([]byte, 16)
				bad := 0
				for time.Now().Before(off) {
					t := time.Now()
					s, err := ses.OpenStream()
					if err != nil {
						bad++
						break
					}
					s.Write(q)
					k, err := io.ReadFull(s, b[:9])
					_, e2 := s.Read(b[9:])
					s.Close()
					e := time.Now()
					if k != 9 || err != nil || e2 != io.EOF {
						bad++
					} else if e.After(on) && e.Before(off) {
						l = append(l, float64(e.Sub(t).Nanoseconds())/1e3)
					}
				}
				mu.Lock()
				all = append(all, l...)
				errs += bad
				mu.Unlock()
			}()
		}
		wg.Wait()
		sort.Float64s(all)
		p := func(f float64) float64 {
			if len(all) == 0 {
				return 0
			}
			return all[int(float64(len(all)-1)*f)]
		}
		fmt.Printf("{\"conns\":%d,\"errors\":%d,\"secs\":%.4f,\"rate\":%.2f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"client_cpu_s\":%.4f}\n",
			len(all), errs, secs, float64(len(all))/secs, p(.5), p(.99), p(1), cpu()-c0)
		return
	}
	total, _ := strconv.ParseUint(os.Args[4], 10, 64)
	each := total / uint64(n)
	var got uint64
	t := time.Now()
	for i := 0; i < n; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, err := ses.OpenStream()
			die(err)
			q := make([]byte, 9)
			q[0] = 'S'
			binary.BigEndian.PutUint64(q[1:], each)
			s.Write(q)
			b := make([]byte, 256<<10)
			var g uint64
			for {
				k, err := s.Read(b)
				g += uint64(k)
				if err != nil {
					break
				}
			}
			s.Close()
			mu.Lock()
			got += g
			mu.Unlock()
		}()
	}
	wg.Wait()
	s := time.Since(t).Seconds()
	fmt.Printf("{\"bytes\":%d,\"ok\":%v,\"secs\":%.4f,\"bytes_per_s\":%.0f,\"client_cpu_s\":%.4f}\n", got, got == each*uint64(n), s, float64(got)/s, cpu()-c0)
}
