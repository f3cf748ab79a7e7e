package daemon_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/memscan"
)

const (
	canaries = 1000
	requests = 20_000
	launches = 200
)

// canaryBed is a bed with many credentials, and all of its secrets in every form
// in which a program could leave them.
type canaryBed struct {
	*testbed.Bed
	t         *testing.T
	passwords []string // in force, by the number in the name
	needles   []memscan.Needle
}

func canaryName(i int) string { return fmt.Sprintf("c%04d", i) }

// put writes new passwords for these credentials into Vault. Half of each says
// that it must be escaped in JSON.
func (b *canaryBed) put(numbers []int) {
	b.t.Helper()
	for _, i := range numbers {
		b.passwords[i] = `"<\` + rand.Text()
		b.needles = append(b.needles, memscan.Needles([]byte(b.passwords[i]))...)
	}
	var failed error
	var mu sync.Mutex
	inParallel(4, len(numbers), func(_, k int) {
		err := b.Vault.PutBatchUser(b.t.Context(), testbed.Scope, canaryName(numbers[k]), map[string]any{
			"username": b.Accounts.Payroll.Name, "password": b.passwords[numbers[k]],
			"names": map[string]string{testbed.Realm: "users/" + canaryName(numbers[k])}, "retrieve": true,
		})
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	})
	if failed != nil {
		b.t.Fatal(failed)
	}
}

// inParallel calls f for 0 to n-1 from so many goroutines, and waits.
func inParallel(goroutines, n int, f func(goroutine, i int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				f(g, i)
			}
		})
	}
	wg.Wait()
}

// clean fails when a secret is readable in the daemon or the launcher.
func (b *canaryBed) clean(when string) {
	b.t.Helper()
	for _, p := range []*testbed.Process{b.Daemon, b.Launcher} {
		hits, err := memscan.Scan(p.PID(), b.needles)
		if err != nil {
			b.t.Fatalf("%s: %v", when, err)
		}
		for _, h := range hits[:min(len(hits), 10)] {
			b.t.Errorf("%s, %s: %v", when, p.Name, h)
		}
	}
	if b.t.Failed() {
		b.t.FailNow() // the rest would say the same
	}
}

// worker is the pid of the sync worker that runs, or 0.
func worker(b *testbed.Bed) int {
	children, err := testbed.Children(b.Launcher.PID())
	if err != nil {
		return 0
	}
	for _, pid := range children {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && strings.HasPrefix(string(comm), "batchwarden-syn") {
			return pid
		}
	}
	return 0
}

// stopped waits until a process that was told to stop has done so. One that had
// ended before, and that nobody has waited for yet, takes signals too: false.
func stopped(pid int) bool {
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, fields, ok := bytes.Cut(stat, []byte(") "))
		switch {
		case err != nil || !ok || fields[0] == 'Z' || fields[0] == 'X':
			return false
		case fields[0] == 'T':
			return true
		}
		time.Sleep(100 * time.Microsecond) // there is no event to wait for
	}
}

// syncing syncs and calls look again and again while the worker stands still,
// at other points of its work each time. It returns the outcome and how often
// that was.
func syncing(t *testing.T, b *testbed.Bed, look func(pid int)) (outcome wire.Sync, looked int) {
	t.Helper()
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		outcome, err = b.Sync()
	}()
	for {
		select {
		case <-ended:
			if err != nil {
				t.Fatal(err)
			}
			return outcome, looked
		default:
		}
		pid := worker(b)
		if pid == 0 || syscall.Kill(pid, syscall.SIGSTOP) != nil || !stopped(pid) {
			time.Sleep(time.Millisecond) // there is no event to wait for
			continue
		}
		look(pid)
		looked++
		_ = syscall.Kill(pid, syscall.SIGCONT)              // look may have ended it
		time.Sleep(10 * time.Millisecond << min(looked, 8)) // its own time
	}
}

// token finds the worker's token of Vault in its memory, where the server's
// answer to the login lies.
func token(t *testing.T, pid int) string {
	t.Helper()
	hits, err := memscan.Scan(pid, memscan.Needles([]byte(`"client_token":"`))[:1])
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for _, h := range hits {
		from, _, _ := strings.Cut(h.Mapping[strings.LastIndexByte(h.Mapping, ' ')+1:], "-")
		begin, err := strconv.ParseInt(from, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 200)
		n, _ := mem.ReadAt(text, begin+h.Offset+int64(len(`"client_token":"`)))
		found, _, whole := bytes.Cut(text[:n], []byte(`"`))
		if whole && len(found) > 16 {
			return string(found)
		}
	}
	return ""
}

// The whole of what this service promises about memory: whatever it does, no
// password, token or key can be read in the daemon or in the launcher, nor in
// what a debugger writes of them to a file, nor in any file of theirs.
func TestNoSecretIsReadable(t *testing.T) {
	b := &canaryBed{Bed: testbed.New(t, testbed.Options{}), t: t, passwords: make([]string, canaries)}
	all, logins := make([]int, canaries), make([]string, canaries)
	for i := range all {
		all[i], logins[i] = i, "users/"+canaryName(i)
	}
	grant(t, b.Bed, logins...)
	for _, p := range b.Passwords() {
		b.needles = append(b.needles, memscan.Needles([]byte(p))...)
	}
	secretID, err := os.ReadFile(filepath.Join(b.Etc, "secret_id"))
	if err != nil {
		t.Fatal(err)
	}
	b.needles = append(b.needles, memscan.Needles(secretID)...)
	status, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if status.Memory.Backend == lockmem.MemfdSecret {
		key, err := os.ReadFile(filepath.Join(b.State, "key"))
		if err != nil {
			t.Fatal(err)
		}
		b.needles = append(b.needles, memscan.Needles(key)...)
	} else {
		t.Logf("the backend is %s, whose pages root can read: they hold keys and are searched all the same for the rest", status.Memory.Backend)
	}

	b.put(all)
	if err := b.Vault.Root().Sys().RevokePrefixWithContext(t.Context(), "auth/approle"); err != nil { // so that the worker logs in
		t.Fatal(err)
	}
	theirs := ""
	outcome, looked := syncing(t, b.Bed, func(pid int) {
		if theirs == "" {
			if theirs = token(t, pid); theirs != "" {
				b.needles = append(b.needles, memscan.Needles([]byte(theirs))...)
			}
		}
		b.clean("during the first sync")
	})
	if outcome.Outcome != "ok" || outcome.Changed != canaries || looked == 0 || theirs == "" {
		t.Fatalf("sync: %+v; looked %d times during it; a token was seen: %v", outcome, looked, theirs != "")
	}
	if s, err := b.Vault.Root().Auth().Token().LookupWithContext(t.Context(), theirs); err != nil || s.Data["path"] != "auth/approle/login" {
		t.Fatalf("what was taken for the worker's token is none: %v", err)
	}
	b.clean("after the first sync")
	t.Logf("%d needles, looked %d times during the first sync", len(b.needles), looked)

	b.serve()
	b.clean("after serving")

	b.put(all[:200])
	_, looked = syncing(t, b.Bed, func(pid int) {
		b.clean("during a rotation")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	})
	if looked == 0 {
		t.Error("no worker was ended")
	}
	b.clean("after the end of a worker in the middle")
	if s := synced(t, b.Bed); s.Changed != 200 {
		t.Errorf("sync: %+v, want 200 changed", s)
	}
	for i := range 300 {
		b.retrieve(b.Client(b.Accounts.LSAM), i)
	}
	b.clean("after a rotation")
	b.files()
	b.dumps()
}

// Where memory cannot be locked the service says so, works, and still leaves
// no password behind.
func TestMemoryThatCannotBeLocked(t *testing.T) {
	b := &canaryBed{Bed: testbed.New(t, testbed.Options{DaemonUnder: []string{"prlimit", "--memlock=65536:65536"}}), t: t}
	status, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if m := status.Memory; m.Backend != lockmem.Unlocked || !strings.Contains(m.Degraded, "RLIMIT_MEMLOCK is 64 KiB") {
		t.Errorf("memory: %+v", m)
	}
	if !slices.ContainsFunc(status.Problems, func(f wire.Finding) bool { return f.Code == "memory.degraded" && f.Detail == status.Memory.Degraded }) {
		t.Errorf("problems: %+v", status.Problems)
	}
	if job, _ := run(t, b.Bed, nil); job.State != wire.Exited {
		t.Errorf("launch: %+v", job)
	}
	for range 100 {
		if got, _ := password(t, b.Bed); got != b.Passwords()[0] {
			t.Fatal("not its password")
		}
	}
	for _, p := range b.Passwords() {
		b.needles = append(b.needles, memscan.Needles([]byte(p))...)
	}
	b.clean("in memory that is not locked")
}

// serve asks for everything that callers ask for, well and badly.
func (b *canaryBed) serve() {
	const goroutines = 6
	question := map[string]any{
		"realm": testbed.Realm, "subject": map[string]any{"user": testbed.User}, "action": "use",
		"object": map[string]any{"platform": "unix", "batch_user": "users/payroll", "machine": testbed.Agent, "references": 1},
	}
	clients := map[string][]*http.Client{}
	for range goroutines {
		for _, as := range []testbed.Account{b.Accounts.LSAM, b.Accounts.Stranger, testbed.Root} {
			clients[as.Name] = append(clients[as.Name], b.Client(as))
		}
	}
	defer func() {
		for _, list := range clients {
			for _, c := range list {
				c.CloseIdleConnections()
			}
		}
	}()
	inParallel(goroutines, requests, func(g, i int) {
		lsam, stranger, root := clients[b.Accounts.LSAM.Name][g], clients[b.Accounts.Stranger.Name][g], clients["root"][g]
		random := mathrand.New(mathrand.NewPCG(testbed.Seed(), uint64(i)))
		n := random.IntN(canaries)
		switch k := random.IntN(100); {
		case i%(requests/launches) == 0:
			b.ask(lsam, "POST", "/v1/jobs", body(map[string]any{"batch_user": canaryName(n)}), 201)
		case k < 20:
			b.ask(lsam, "GET", "/v1/whoami", nil, 200)
		case k < 25:
			b.ask(stranger, "GET", "/v1/whoami", nil, 200)
		case k < 45:
			b.ask(lsam, "POST", "/v1/authorize", question, 200)
		case k < 60:
			b.ask(lsam, "GET", "/v1/batch-users/"+canaryName(n), nil, 200)
		case k == 60:
			b.ask(root, "GET", "/v1/status", nil, 200)
		case k == 61 && n < 100:
			b.ask(root, "GET", "/v1/batch-users", nil, 200)
		case k < 88:
			b.retrieve(lsam, n)
		case k < 91:
			b.ask(lsam, "POST", "/v1/batch-users/"+canaryName(n)+"/retrieve", map[string]any{"realm": testbed.Realm, "subject": map[string]any{"user": testbed.Nobody}}, 403)
		case k < 94:
			b.ask(stranger, "POST", "/v1/batch-users/"+canaryName(n)+"/retrieve", retrieveBody(), 403)
		case k < 96:
			b.ask(lsam, "POST", "/v1/authorize", []byte(`{"realm":"opcon",`), 400)
		case k < 98:
			b.ask(lsam, "POST", "/v1/batch-users/none/retrieve", retrieveBody(), 404)
		default:
			b.ask(lsam, "GET", "/v1/jobs/none", nil, 404)
		}
	})
}

// ask makes a request and wants the status.
func (b *canaryBed) ask(c *http.Client, method, path string, body any, status int) (answer []byte) {
	text, isText := body.([]byte)
	if !isText && body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			b.t.Error(err)
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://batchwarden"+path, bytes.NewReader(text))
	if err != nil {
		b.t.Error(err)
		return nil
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := c.Do(r)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil || res.StatusCode != status {
		b.t.Errorf("%s %s: %d %.200s, %v, want %d", method, path, res.StatusCode, answer, err, status)
	}
	return answer
}

// retrieve wants the password that is in force.
func (b *canaryBed) retrieve(c *http.Client, i int) {
	if got := b.ask(c, "POST", "/v1/batch-users/"+canaryName(i)+"/retrieve", retrieveBody(), 200); string(got) != b.passwords[i] {
		b.t.Errorf("%s: not its password", canaryName(i))
	}
}

// files looks for secrets in all that the programs write, except the key in its
// own file.
func (b *canaryBed) files() {
	b.t.Helper()
	hits, err := memscan.ScanFiles(b.needles, b.State, b.Jobs, b.Logs)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, h := range hits {
		if h.Mapping != filepath.Join(b.State, "key") {
			b.t.Errorf("file: %v", h)
		}
	}
}

// dumps looks at both processes through a debugger. To prove that what it sees
// is the memory that matters, both are made to hold a text that is looked for
// too: the daemon in a request that nobody has overwritten yet, the launcher in
// the command of a job.
func (b *canaryBed) dumps() {
	b.t.Helper()
	planted := rand.Text()
	conn, err := b.Dial(b.t.Context(), b.Accounts.LSAM)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Planted: %s\r\n\r\n", planted); err != nil {
		b.t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
	run(b.t, b.Bed, map[string]any{"command": []string{"/bin/true", planted}})

	_, err = exec.LookPath("gcore")
	debugger := err == nil
	if !debugger && os.Getenv(testbed.NoSkip) == "1" {
		b.t.Error("no gcore; run: apt-get install gdb")
	}
	here := memscan.Needles([]byte(planted))
	for _, p := range []*testbed.Process{b.Daemon, b.Launcher} {
		hits, err := memscan.Scan(p.PID(), here)
		if err != nil || !slices.ContainsFunc(hits, func(h memscan.Hit) bool { return h.Form == "raw" }) {
			b.t.Errorf("%s: what was planted is not found: %v, %v", p.Name, hits, err)
		}
		if !debugger {
			b.t.Logf("%s: no gcore, so its dump is not searched; to install: apt-get install gdb", p.Name)
			continue
		}
		dir := b.t.TempDir()
		// -a: also what the program asked to be left out of dumps.
		if out, err := exec.Command("gcore", "-a", "-o", filepath.Join(dir, "core"), strconv.Itoa(p.PID())).CombinedOutput(); err != nil {
			b.t.Fatalf("gcore: %v: %s", err, out)
		}
		if hits, err = memscan.ScanFiles(b.needles, dir); err != nil || len(hits) > 0 {
			b.t.Errorf("dump of %s: %v, %v", p.Name, hits[:min(len(hits), 10)], err)
		}
		if hits, err = memscan.ScanFiles(here, dir); err != nil || len(hits) == 0 {
			b.t.Errorf("dump of %s: what was planted is not found: %v", p.Name, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.t.Error(err)
		}
	}
}
