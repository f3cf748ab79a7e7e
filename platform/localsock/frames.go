package localsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrFrame reports that the other side broke the framing: too long, or other descriptors than it announced. Nothing
// more can be read from it.
var ErrFrame = errors.New("malformed frame")

// headerSize is four octets of length, big endian, and one with the number of descriptors that came with the first.
const headerSize = 5

// Frames carries frames of at most max octets and at most files descriptors each over a connection.
type Frames struct {
	c     *net.UnixConn
	max   int
	files int
	wait  time.Duration

	mu  sync.Mutex // guards err and the order of writes
	err error
}

// NewFrames takes the connection over. A Send that the other side does not read fails after wait (0: never), which
// ends the sending: half a frame may be gone.
func NewFrames(c *net.UnixConn, max, files int, wait time.Duration) *Frames {
	return &Frames{c: c, max: max, files: files, wait: wait}
}

// Close closes the connection.
func (f *Frames) Close() error { return f.c.Close() }

// Conn is the connection underneath, for looking at the peer.
func (f *Frames) Conn() *net.UnixConn { return f.c }

// Send writes one frame and the descriptors with its first octet. It may be called from several goroutines. The
// files stay the caller's.
func (f *Frames) Send(body []byte, files ...syscall.Conn) error {
	if len(body) > f.max || len(files) > f.files {
		return fmt.Errorf("%w: %d octets and %d descriptors are more than the %d and %d allowed", ErrFrame, len(body), len(files), f.max, f.files)
	}
	frame := make([]byte, headerSize, headerSize+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	frame[4] = byte(len(files))
	frame = append(frame, body...)

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.err = f.write(frame, files)
	return f.err
}

func (f *Frames) write(frame []byte, files []syscall.Conn) error {
	if f.wait > 0 {
		if err := f.c.SetWriteDeadline(time.Now().Add(f.wait)); err != nil {
			return err
		}
	}
	if len(files) > 0 {
		n, err := sendFiles(f.c, frame, files)
		if err != nil {
			return err
		}
		if frame = frame[n:]; len(frame) == 0 {
			return nil
		}
	}
	_, err := f.c.Write(frame)
	return err
}

// Receive reads one frame; one goroutine only. The files are the caller's to close. At the orderly end it returns
// io.EOF; after any error nothing more can be read.
func (f *Frames) Receive() (body []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			body, files = nil, nil
		}
	}()
	var header [headerSize]byte
	for n := 0; n < headerSize; {
		m, got, err := receiveFiles(f.c, header[n:], f.files)
		if files = append(files, got...); err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, files, err
		}
		n += m
	}
	size := binary.BigEndian.Uint32(header[:])
	if uint64(size) > uint64(f.max) {
		return nil, files, fmt.Errorf("%w: %d octets are more than the %d allowed", ErrFrame, size, f.max)
	}
	if len(files) != int(header[4]) {
		return nil, files, fmt.Errorf("%w: %d descriptors came and %d were announced", ErrFrame, len(files), header[4])
	}
	// Descriptors that come in the middle of a body belong to nothing; a plain read lets the kernel close them.
	body = make([]byte, size)
	if _, err := io.ReadFull(f.c, body); err != nil {
		return nil, files, io.ErrUnexpectedEOF
	}
	return body, files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // only descriptors that nobody will use
	}
}
