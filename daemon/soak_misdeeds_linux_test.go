package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// A rogue is one misbehaving client. Whatever it does is over when the context ends.
type rogue struct {
	*siege
	ctx  context.Context
	as   testbed.Account
	talk string // the id of a job that goes on and writes, and is the rogue client's
}

// The rogues: an LSAM that has lost its mind, one that asks more than it may, and a user whom no entry knows, such as
// that of a job.
const (
	mad = iota
	flooding
	unknown
)

// misdeeds are done over and over, each by one goroutine.
var misdeeds = []struct {
	name string
	as   int
	do   func(*rogue)
}{
	{"silence", unknown, func(r *rogue) { r.left(nil) }},
	{"half a header", unknown, func(r *rogue) { r.left([]byte("GET /v1/whoami HTTP/1.1\r\nHo")) }},
	{"half a body", mad, func(r *rogue) { r.left(plain("POST", "/v1/jobs", make([]byte, 999))[:200]) }},
	{"half a body that is not wanted", unknown, func(r *rogue) { r.left(plain("GET", "/v1/whoami", make([]byte, 999))[:200]) }},
	{"one octet a second", mad, (*rogue).drip},
	{"a stream half closed", mad, (*rogue).halfClosed},
	{"slow reading of output", mad, func(r *rogue) { r.sip("/v1/jobs/" + r.talk + "/output/stdout?follow=1") }},
	{"no reading of many answers", mad, (*rogue).deaf},
	{"following given up", mad, func(r *rogue) { r.giveUp("/v1/jobs/" + r.talk + "/output/stderr?follow=1") }},
	{"waiting for events given up", mad, func(r *rogue) { r.giveUp(fmt.Sprintf("/v1/events?after=0&wait=%ds", 1+rand.IntN(60))) }},
	{"waiting for a job given up", mad, func(r *rogue) { r.giveUp("/v1/jobs/" + r.talk + "?wait=60s") }},
	{"a flood", flooding, (*rogue).flood},
	{"a flood of connections", unknown, (*rogue).crowd},
	{"launches dropped", mad, (*rogue).dropLaunch},
	{"retrieves dropped", mad, func(r *rogue) {
		r.dropAnywhere(plain("POST", "/v1/batch-users/payroll/retrieve", marshal(retrieveBody())))
	}},
	{"a password into a pipe that nobody reads", mad, (*rogue).fullPipe},
	{"a job that writes what nobody reads", mad, (*rogue).unreadJob},
	{"descriptors of half a request", mad, func(r *rogue) { r.bring(plain("POST", "/v1/jobs", make([]byte, 99))[:50], 3) }},
	{"too many descriptors", unknown, func(r *rogue) { r.bring(plain("GET", "/v1/whoami", nil), 4+rand.IntN(100)) }},
	{"descriptors with what takes none", unknown, func(r *rogue) { r.bring(plain("GET", "/v1/whoami", nil), 3) }},
	{"requests ahead of pending descriptors", mad, (*rogue).pipeline},
	{"a body too large", mad, (*rogue).oversized},
	{"a header too large", unknown, func(r *rogue) { r.left([]byte("GET /v1/health HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20))) }},
	{"garbage", unknown, (*rogue).garbage},
}

// misbehave has everything done that is in the list until the context ends.
func (s *siege) misbehave(ctx context.Context, all *sync.WaitGroup) {
	accounts := []testbed.Account{mad: s.Accounts.Stranger, flooding: s.Accounts.Reports, unknown: s.Accounts.Payroll}
	const talk = "while :; do head -c 100000 /dev/zero; sleep 0.1; done"
	id, _ := s.add(accounts[mad], "talk", nil)
	text := marshal(body(map[string]any{"id": id, "command": []string{"/bin/sh", "-c", "echo " + id + " >>" + s.ids + "; " + talk}}))
	s.jobs[id] = job{accounts[mad], text}
	c := s.Client(accounts[mad])
	s.ask(c, "POST", "/v1/jobs", text, 201)
	var over sync.WaitGroup
	for _, m := range misdeeds {
		r := &rogue{siege: s, ctx: ctx, as: accounts[m.as], talk: id}
		over.Go(func() {
			for ctx.Err() == nil {
				m.do(r)
				s.mu.Lock()
				s.deeds[m.name]++
				s.mu.Unlock()
			}
		})
	}
	all.Go(func() {
		defer c.CloseIdleConnections()
		over.Wait()
		s.ask(c, "POST", "/v1/jobs/"+id+"/signal", marshal(map[string]any{"signal": "KILL"}), 200)
	})
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// conn is a connection that is closed when the round is over.
func (r *rogue) conn() (c *net.UnixConn, closed func()) {
	c, err := r.Dial(context.Background(), r.as)
	if err != nil {
		r.t.Error(err)
		runtime.Goexit()
	}
	stop := context.AfterFunc(r.ctx, func() { _ = c.Close() }) // perhaps a second time
	return c, func() {
		stop()
		_ = c.Close()
	}
}

// pause waits so long, or until the round is over.
func (r *rogue) pause(d time.Duration) {
	select {
	case <-r.ctx.Done():
	case <-time.After(d):
	}
}

// left sends something and then nothing: the service must end that.
func (r *rogue) left(text []byte) {
	c, closed := r.conn()
	defer closed()
	_, _ = c.Write(text) // the service may have had enough of it
	r.ends(c)
}

// ends reads until the service ends the connection.
func (r *rogue) ends(c net.Conn) {
	const far = 5 * time.Minute // its own bounds are below this; the machine may be slow
	_ = c.SetReadDeadline(time.Now().Add(far))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Errorf("%s: a connection is held open", r.as.Name)
	}
}

// drip sends a request one octet a second.
func (r *rogue) drip() {
	c, closed := r.conn()
	defer closed()
	for _, octet := range plain("GET", "/v1/whoami", nil) {
		if _, err := c.Write([]byte{octet}); err != nil {
			return
		}
		r.pause(time.Second)
		if r.ctx.Err() != nil {
			return
		}
	}
	r.t.Error("a request that took a minute to come was read to its end")
}

// halfClosed says that no more will come while the answer is still waited for.
func (r *rogue) halfClosed() {
	c, closed := r.conn()
	defer closed()
	_, _ = c.Write(plain("GET", "/v1/jobs/"+r.talk+"?wait=60s", nil))
	_ = c.CloseWrite()
	r.ends(c)
}

// sip asks for much and reads one octet a second of it.
func (r *rogue) sip(path string) {
	c, closed := r.conn()
	defer closed()
	_, _ = c.Write(plain("GET", path, nil))
	for {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		r.pause(time.Second)
	}
}

// deaf asks again and again and reads nothing: the answers fill the connection.
func (r *rogue) deaf() {
	c, closed := r.conn()
	defer closed()
	text := bytes.Repeat(plain("GET", "/v1/whoami", nil), 100)
	for {
		if _, err := c.Write(text); err != nil {
			return
		}
	}
}

// giveUp asks for what takes long, and is gone.
func (r *rogue) giveUp(path string) {
	c, closed := r.conn()
	defer closed()
	_, _ = c.Write(plain("GET", path, nil))
	r.pause(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
}

// flood asks without pause on eight connections.
func (r *rogue) flood() {
	client := r.Client(r.as)
	defer client.CloseIdleConnections()
	text := marshal(question("jdoe"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if r.ctx.Err() != nil {
					return
				}
				resp, err := client.Post("http://x/v1/authorize", "application/json", bytes.NewReader(text))
				if err != nil {
					continue
				}
				discard(resp.Body)
				if resp.Body.Close() != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusTooManyRequests {
					r.t.Errorf("the flood got %d", resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
}

// crowd takes all the connections that a user may have, and more.
func (r *rogue) crowd() {
	for range 300 {
		_, closed := r.conn()
		defer closed()
	}
	r.pause(time.Second)
}

// dropAnywhere breaks the connection at any place of a request, or while it is answered.
func (r *rogue) dropAnywhere(text []byte) {
	r.drop(r.as, text[:rand.IntN(len(text)+1)], 0)
	r.drop(r.as, text, time.Duration(rand.Int64N(int64(3*time.Millisecond))))
}

func (r *rogue) dropLaunch() {
	_, text := r.add(r.as, "dropped", nil)
	r.dropAnywhere(plain("POST", "/v1/jobs", text))
	r.pause(50 * time.Millisecond) // it is not about how many
}

// files are descriptors to send: both ends of a pipe, and more of the one.
func (r *rogue) files(many int) (files []localsock.File, closed func()) {
	near, far, err := os.Pipe()
	if err != nil {
		r.t.Error(err)
		runtime.Goexit()
	}
	files = []localsock.File{near, far}
	for len(files) < many {
		files = append(files, far)
	}
	return files[:many], func() { _, _ = near.Close(), far.Close() } // nothing was in them
}

// bring sends descriptors and waits for what comes of it.
func (r *rogue) bring(text []byte, many int) {
	files, done := r.files(many)
	defer done()
	c, closed := r.conn()
	defer closed()
	_, _ = localsock.WithFiles(c, files...).Write(text)
	if err := c.CloseWrite(); err == nil {
		r.ends(c)
	}
}

// pipeline sends requests with descriptors without waiting for answers.
func (r *rogue) pipeline() {
	files, done := r.files(2)
	defer done()
	c, closed := r.conn()
	defer closed()
	text := plain("GET", "/v1/jobs/"+r.talk+"?wait=60s", nil)
	for range 5 {
		if _, err := localsock.WithFiles(c, files...).Write(text); err != nil {
			break
		}
	}
	r.ends(c)
}

// fullPipe has a password written to where there is no room.
func (r *rogue) fullPipe() {
	near, far, err := os.Pipe()
	if err != nil {
		r.t.Error(err)
		return
	}
	defer near.Close() // what is in it is nothing
	defer far.Close()
	raw, err := far.SyscallConn()
	if err != nil {
		r.t.Error(err)
		return
	}
	_ = raw.Control(func(fd uintptr) { // a pipe of os.Pipe's does not wait
		for err == nil {
			_, err = syscall.Write(int(fd), make([]byte, 4096))
		}
	})
	c, closed := r.conn()
	defer closed()
	_, _ = localsock.WithFiles(c, far).Write(plain("POST", "/v1/batch-users/payroll/retrieve", marshal(retrieveBody())))
	answer := make([]byte, 12)
	if _, err := io.ReadFull(c, answer); err == nil && string(answer) != "HTTP/1.1 400" {
		r.t.Errorf("a password for a full pipe: %s", answer)
	}
}

// unreadJob launches a job that writes into a pipe that nobody reads, and then lets go of the pipe.
func (r *rogue) unreadJob() {
	near, far, err := os.Pipe()
	if err != nil {
		r.t.Error(err)
		return
	}
	c, err := r.Dial(context.Background(), r.as) // not broken at the end of the round: it is not about that
	if err != nil {
		r.t.Error(err)
		return
	}
	defer c.Close() // the answer was read
	id, _ := r.add(r.as, "unread", nil)
	text := marshal(body(map[string]any{"id": id, "stdio": "passed", "command": []string{"/bin/sh", "-c", "echo " + id + " >>" + r.ids + "; cat /dev/zero"}}))
	r.mu.Lock()
	r.jobs[id] = job{as: r.as} // not to be asked for again: it has its descriptors from here
	r.mu.Unlock()
	_, err = localsock.WithFiles(c, near, far, far).Write(plain("POST", "/v1/jobs", text))
	_ = far.Close() // the job has its own
	answer := make([]byte, 12)
	if err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err != nil || string(answer) != "HTTP/1.1 201" {
		r.t.Errorf("%s: %q, %v", id, answer, err)
	}
	r.pause(300 * time.Millisecond)
	_ = near.Close() // at which the job ends
}

// oversized sends bodies above every limit.
func (r *rogue) oversized() {
	for _, path := range []string{"/v1/jobs", "/v1/authorize", "/v1/batch-users/payroll/report"} {
		c, closed := r.conn()
		whole := append([]byte(`{"realm":"`), bytes.Repeat([]byte("x"), wire.MaxBody+1)...)
		go discard(c) // ends with the connection
		_, _ = c.Write(plain("POST", path, whole))
		closed()
	}
}

// garbage is no HTTP at all.
func (r *rogue) garbage() {
	for _, text := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\r\n\r\n\r\n", "GET / HTTP/0.9\r\n\r\n",
		"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "GET /v1/whoami HTTP/1.1\r\n\r\n",
		"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		c, closed := r.conn()
		_, _ = c.Write([]byte(text))
		_ = c.CloseWrite()
		r.ends(c)
		closed()
	}
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	r.left(noise)
}
