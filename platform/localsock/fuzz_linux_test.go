package localsock

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A packet is what one system call sends: so many octets, with so many descriptors.
type packet struct{ octets, files int }

// packets reads a script: two octets for each packet. Some bring more descriptors than any request may.
func packets(script []byte) (list []packet) {
	for ; len(script) >= 2 && len(list) < 64; script = script[2:] {
		p := packet{1 + int(script[0]), 0}
		if script[1] < 128 {
			p.files = int(script[1]) % 6
		}
		if script[1] == 127 {
			p.files = 253 // the most that the kernel sends at once
		}
		list = append(list, p)
	}
	return list
}

// FuzzRequests sends descriptors in arbitrary packets, of arbitrary length against the requests in them, all at once or
// each when the request before it was answered. A request gets those that came with its first octet, whole and in their
// order, or the connection breaks; whatever happens, none is left open. Of a request that was begun before the one ahead
// was answered, a reader with a buffer cannot tell the first octet from the next that it reads: it may get those that
// came with a later one, but never another request's.
func FuzzRequests(f *testing.F) {
	for _, script := range [][]byte{
		{}, {9, 0, 9, 1, 9, 3}, {9, 1, 4, 0, 4, 0}, {4, 2, 4, 1}, {9, 4}, {9, 127}, {0, 1, 0, 1}, {19, 1, 9, 1}, {9, 3, 9, 3, 9, 3, 9, 3}, {255, 3, 255, 0}, {4, 0, 9, 2}, []byte("0C8C2x"),
	} {
		for mode := range uint8(16) {
			f.Add(script, uint8(9), mode)
		}
	}
	// Each packet brings other files than the one before it.
	var pool []*os.File
	var inodes []uint64
	for range 64 {
		file, err := os.CreateTemp(f.TempDir(), "")
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = file.Close() })
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil {
			f.Fatal(err)
		}
		pool, inodes = append(pool, file), append(inodes, st.Ino)
	}
	f.Fuzz(func(t *testing.T, script []byte, size, mode uint8) {
		const limit = 3
		length, list := 1+int(size), packets(script)
		patient, buffered, half, late := mode&1 != 0, mode&2 != 0, mode&4 != 0, mode&8 != 0
		before := openDescriptors(t)
		from, to := unbound(t)
		c := NewRequests(to, limit)

		begins := map[int]int{} // by the octet: which packet begins there
		sent, good, clean := 0, 0, true
		for n, p := range list {
			if p.files > 0 && (sent%length != 0 || p.files > limit) {
				clean = false
			}
			begins[sent] = n
			if sent += p.octets; clean {
				good = sent / length // at least so many whole requests are as they should be
			}
		}
		// brought is the packet whose descriptors the request should get; -1: none.
		brought := func(request int, got bool) int {
			last := request*length + 1
			if buffered && got {
				last = (request + 1) * length
			}
			for at := request * length; at < last; at++ {
				if n, is := begins[at]; is && list[n].files > 0 {
					return n
				}
			}
			return -1
		}

		answered := make(chan struct{}, 64*256)
		done := make(chan struct{})
		go func() { // ends with the connection
			defer close(done)
			sent := 0
			for n, p := range list {
				if patient && sent > 0 && sent%length == 0 {
					for range sent/length - max(0, sent-list[n-1].octets)/length {
						if _, ok := <-answered; !ok {
							return
						}
					}
				}
				files := make([]File, p.files)
				for i := range files {
					files[i] = pool[(n+i)%len(pool)]
				}
				if _, err := WithFiles(from, files...).Write(make([]byte, p.octets)); err != nil {
					return
				}
				sent += p.octets
			}
			if half {
				_ = from.CloseWrite()
			} else {
				_ = from.Close() // a second time further below
			}
		}()

		var reader io.Reader = c
		if buffered {
			reader = bufio.NewReaderSize(c, 4096)
		}
		_ = to.SetReadDeadline(time.Now().Add(20 * time.Second))
		handled := 0
		var err error
		for ; ; handled++ {
			if _, err = io.ReadFull(reader, make([]byte, length)); err != nil {
				break
			}
			files := c.Begin()
			n, want := brought(handled, len(files) > 0), 0
			if n >= 0 {
				want = list[n].files
			}
			if len(files) != want {
				t.Errorf("request %d: %d descriptors, want %d", handled, len(files), want)
			}
			for i, file := range files[:min(len(files), want)] {
				var st unix.Stat_t
				if err := control(file, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil || st.Ino != inodes[(n+i)%len(inodes)] {
					t.Errorf("request %d: descriptor %d is another, %v", handled, i, err)
				}
			}
			c.Discard(files)
			if !late {
				_, _ = c.Write(nil) // the answer begins
			}
			c.End()
			answered <- struct{}{}
		}
		close(answered)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("nothing came any more after request %d", handled)
		case errors.Is(err, ErrFrame): // also where a request came ahead of a late answer
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET):
			t.Errorf("got %v", err)
		case !buffered && !clean:
			t.Errorf("descriptors at a wrong place broke nothing; %d requests", handled)
		}
		if !buffered && !late && handled < good {
			t.Errorf("%d requests, want %d and then %v", handled, good, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		_ = from.Close() // perhaps a second time
		<-done
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// unbound is a pair of connections that the test closes itself.
func unbound(t *testing.T) (from, to *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var both []*net.UnixConn
	for _, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		both = append(both, c.(*net.UnixConn))
	}
	return both[0], both[1]
}
