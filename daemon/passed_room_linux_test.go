package daemon_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/platform/localsock"
)

// TestPassedPipeWithoutRoom: a pipe that is full gets the password once it has been read from, which is another
// decision, and both are written down with how they ended.
func TestPassedPipeWithoutRoom(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	ask := map[string]any{"realm": "opcon", "subject": map[string]any{"user": testbed.User}}
	const path = "/v1/batch-users/payroll/retrieve"
	password := string(call(t, b, b.Accounts.LSAM, "POST", path, ask).Body)
	conn := lsamConn(t, b)
	r, w := piped(t)
	if err := w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	filled, err := w.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the pipe does not fill: %v", err)
	}
	read := make(chan error, 1)
	go func() { // ends when the pipe has been emptied, or is closed
		for {
			records, err := b.Audit()
			for _, x := range records {
				if x.Text("code") == "failed" && strings.Contains(x.Text("reason"), localsock.ErrNoRoom.Error()) {
					_, err = io.ReadFull(r, make([]byte, filled))
					read <- err
					return
				}
			}
			if err != nil || t.Context().Err() != nil {
				read <- errors.Join(err, t.Context().Err())
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	a := exchange(t, conn, bufio.NewReader(conn), "POST", path, ask, w)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if a.Status != 204 || a.Header.Get("Batchwarden-Username") != b.Accounts.Payroll.Name {
		t.Fatalf("%d %s %v", a.Status, a.Body, a.Header)
	}
	got := make([]byte, 100)
	if n, err := r.Read(got); err != nil || string(got[:n]) != password {
		t.Errorf("got %q, %v", got[:n], err)
	}
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]string{} // by decision
	for _, x := range records {
		if x.Text("kind") == "retrieve.ended" {
			ended[x.Text("decision_id")] += x.Text("code")
		}
	}
	counts := map[string]int{}
	for _, code := range ended {
		counts[code]++
	}
	if len(ended) != 3 || counts["failed"] != 1 || counts["delivered"] != 2 { // and the password asked for in the beginning
		t.Errorf("ended: %v", ended)
	}
}
