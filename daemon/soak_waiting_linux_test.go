package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestAThousandWaitingJobs: whoever waits for them all parks one request, which is all that they cost the daemon, and
// goes on with it when the daemon was started anew.
func TestAThousandWaitingJobs(t *testing.T) {
	const many = 1000
	b := testbed.New(t, testbed.Options{})
	lsam := b.Accounts.LSAM
	run(t, b, nil)
	fifo := filepath.Join(b.Accounts.Payroll.Home, "gate")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(fifo, int(b.Accounts.Payroll.UID), int(b.Accounts.Payroll.GID)); err != nil {
		t.Fatal(err)
	}
	gate := opened(t, fifo, os.O_RDWR) // so that a job waits for its line, whenever it comes to read it
	defer os.Remove(fifo)

	client := b.Client(lsam)
	defer client.CloseIdleConnections()
	ask := func(method, path string, body any) (status int, text []byte) {
		t.Helper()
		r, err := http.NewRequest(method, "http://x"+path, bytes.NewReader(marshal(body)))
		if err != nil {
			t.Fatal(err)
		}
		if body == nil {
			r.Body, r.ContentLength = http.NoBody, 0
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var all bytes.Buffer
		if _, err := all.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, all.Bytes()
	}
	next := func(after uint64, wait string) (page wire.Events) {
		t.Helper()
		status, text := ask("GET", fmt.Sprintf("/v1/events?after=%d&wait=%s", after, wait), nil)
		if err := json.Unmarshal(text, &page); status != 200 || err != nil {
			t.Fatalf("events: %d %s, %v", status, text, err)
		}
		return page
	}

	at := next(0, "0s").Next
	before := holds(t, b.Daemon)
	begun := time.Now()
	waiting := map[string]bool{}
	for n := range many {
		id := fmt.Sprintf("waits-%d", n)
		status, text := ask("POST", "/v1/jobs", body(map[string]any{"id": id, "stdio": "null", "command": []string{"/bin/sh", "-c", "read line <" + fifo}}))
		if status != 201 {
			t.Fatalf("%s: %d %s", id, status, text)
		}
		waiting[id] = true
	}
	t.Logf("%d launches in %s", many, time.Since(begun))
	started := map[string]int{}
	for len(started) < many {
		page := next(at, "60s")
		at = page.Next
		for _, e := range page.Events {
			if e.Type == wire.JobStarted {
				started[e.Job.ID]++
			}
		}
	}

	// One more request is parked, on the connection that was there before, while the daemon is looked at.
	parked := make(chan struct{})
	go func() { // ends with the daemon, or the next one's answer
		defer close(parked)
		resp, err := client.Get(fmt.Sprintf("http://x/v1/events?after=%d&wait=60s", at))
		if err == nil {
			discard(resp.Body)
			_ = resp.Body.Close() // the daemon was ended meanwhile
		}
	}()
	during, launcher := holds(t, b.Daemon), holds(t, b.Launcher)
	t.Logf("daemon before %s, with %d jobs %s; launcher %s", before, many, during, launcher)
	if more := during.descriptors - before.descriptors; more > 2 {
		t.Errorf("%d jobs that are waited for cost the daemon %d descriptors", many, more)
	}
	if more := during.threads - before.threads; more > 16 {
		t.Errorf("%d threads", more)
	}
	by := goroutines(t, b.Daemon)
	if n := sum(by); n > 50 {
		t.Errorf("%d goroutines: %v", n, by)
	} else {
		t.Logf("%d goroutines", n)
	}

	// The daemon that comes next does not know the number any more, and says so; the jobs are the same.
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	<-parked // its client has asked the next one
	if status, text := ask("GET", fmt.Sprintf("/v1/events?after=%d", at), nil); status != 410 {
		t.Errorf("the old number: %d %s", status, text)
	}
	at = 0
	for page := next(at, "0s"); len(page.Events) > 0; page = next(at, "0s") {
		at = page.Next
	}
	_, text := ask("GET", "/v1/jobs?state=running", nil)
	var list wire.Jobs
	if err := json.Unmarshal(text, &list); err != nil || len(list.Jobs) != many {
		t.Errorf("%d jobs are running, %v", len(list.Jobs), err)
	}
	if _, err := gate.Write(bytes.Repeat([]byte("\n"), many)); err != nil {
		t.Fatal(err)
	}
	ends, begun := map[string]int{}, time.Now()
	for requests := 1; len(ends) < many; requests++ {
		page := next(at, "60s")
		if len(page.Events) == 0 {
			t.Fatalf("nothing within a minute; %d ends are missing", many-len(ends))
		}
		at = page.Next
		for _, e := range page.Events {
			if e.Type == wire.JobEnded {
				ends[e.Job.ID]++
			}
		}
		if len(ends) == many {
			t.Logf("%d ends in %s, by %d requests one after another", many, time.Since(begun), requests)
		}
	}
	for id := range waiting {
		if ends[id] != 1 || started[id] != 1 {
			t.Errorf("%s: %d starts and %d ends were told", id, started[id], ends[id])
		}
	}
	for _, e := range next(at, "100ms").Events {
		if e.Job != nil {
			t.Errorf("and then %+v", e)
		}
	}
}
