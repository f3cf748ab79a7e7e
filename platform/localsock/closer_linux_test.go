package localsock

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// held is a descriptor whose closing lasts until release is closed.
func held(t *testing.T, release chan struct{}) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	rc, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	go func() { // ends with release
		_ = rc.Control(func(uintptr) { close(begun); <-release })
	}()
	<-begun
	return r
}

// TestCloser: descriptors whose closing lasts hold up nobody but their owner's others.
func TestCloser(t *testing.T) {
	var c Closer
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	for range closings {
		c.Close(1, held(t, release))
	}
	for range maxUnclosed {
		_, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Close(1, w)
	}
	if !c.Full(1) || c.Full(2) {
		t.Errorf("full: %v and %v, want one and not the other", c.Full(1), c.Full(2))
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Close(2, w)
	if err := r.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("another owner's descriptor was not closed: %v", err)
	}

	// Meanwhile more of the first owner's are let go of by the kernel, and end his connection.
	from, to := pair(t)
	requests, p := NewRequests(to, 3), tell(t, "x")
	requests.CloseWith(&c, 1)
	send(t, from, "head", p.r)
	if n, err := requests.Read(make([]byte, 10)); !errors.Is(err, ErrFrame) {
		t.Errorf("%d, %v, want %v", n, err, ErrFrame)
	}
	p.unheld(t)
	free()
	for deadline := time.Now().Add(20 * time.Second); c.Full(1); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they are never closed")
		}
	}
}
