package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/vault/vaulttest"
)

// interval is how often the daemon with many credentials looks.
const interval = time.Second

// patience is how long something may take that is not there at all after it.
const patience = 30 * time.Second

// manyOptions are those of a bed that many runs on.
func manyOptions() testbed.Options {
	return testbed.Options{OnDisk: true, Interval: interval, Edit: func(yaml string) string {
		return strings.Replace(yaml, "sweep: "+(4*interval).String(), "sweep: 1h", 1)
	}}
}

// A bound is a figure that has a most.
type bound struct {
	name  string
	value float64
	most  float64
	unit  string
}

func (b bound) holds() bool { return b.value <= b.most }

// bounds are all of them, and what could not be measured.
type bounds struct {
	list []bound
	left []string
}

func (b *bounds) add(name string, value, most float64, unit string) {
	b.list = append(b.list, bound{name, value, most, unit})
}

// errOver reports that a figure is over its bound.
var errOver = errors.New("over its bound")

// print writes them; an error, errOver, names those that do not hold.
func (b *bounds) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tis\tat most\t")
	var over []error
	for _, x := range b.list {
		mark := ""
		if !x.holds() {
			mark = "over"
			over = append(over, fmt.Errorf("%s: %.2f %s, at most %g: %w", x.name, x.value, x.unit, x.most, errOver))
		}
		fmt.Fprintf(w, "  %s\t%.2f %s\t%g\t%s\n", x.name, x.value, x.unit, x.most, mark)
	}
	for _, why := range b.left {
		fmt.Fprintf(w, "  left out: %s\t\t\t\n", why)
	}
	return errors.Join(append(over, w.Flush())...)
}

// many is a bed with many credentials, and what was measured on it.
type many struct {
	*testbed.Bed
	bounds
	names    []string
	versions map[string]int
	policy   int // version of the policy
	root     *http.Client
	lsam     *http.Client
	heard    uint64 // the last event
}

// measureMany puts n credentials into the bed's Vault and measures what the
// daemon makes of them. Every change to the bed stays.
func measureMany(b *testbed.Bed, n int) (found bounds, err error) {
	m := &many{Bed: b, versions: map[string]int{"payroll": 1, "reports": 1}, root: b.Client(testbed.Root), lsam: b.Client(b.Accounts.LSAM)}
	defer m.root.CloseIdleConnections()
	defer m.lsam.CloseIdleConnections()
	for i := range n {
		m.names = append(m.names, fmt.Sprintf("many-%05d", i))
	}
	for _, step := range []func() error{m.fill, m.firstSync, m.poll, m.change, m.syncs, m.start, m.memory, m.open} {
		if err := step(); err != nil {
			return m.bounds, err
		}
	}
	return m.bounds, nil
}

// connections is how many read at the same time, in the worker and in what it
// is compared to.
const connections = 8

// parallel calls f for every name from so many goroutines.
func (m *many) parallel(f func(connection int, name string) error) error {
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for c := range connections {
		wg.Go(func() {
			for i := c; i < len(m.names) && errs[c] == nil; i += connections {
				errs[c] = f(c, m.names[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// put writes the next version of a document, with a new password.
func (m *many) put(name string) error {
	m.versions[name]++
	return m.write(name)
}

func (m *many) write(name string) error {
	return m.Vault.PutBatchUser(context.Background(), testbed.Scope, name, map[string]any{
		"username": m.Accounts.Payroll.Name, "password": rand.Text(), "names": map[string]string{testbed.Realm: "users/" + name}, "retrieve": true,
	})
}

// index hints at everything in the scope that has something, as batchwarden admin keeps it.
func (m *many) index() error {
	return m.Vault.PutIndex(context.Background(), testbed.Scope, map[string]any{"batch_users": m.versions, "policies": map[string]int{testbed.Realm: m.policy}})
}

// fill writes all documents.
func (m *many) fill() error {
	if err := m.Daemon.Stop(); err != nil {
		return err
	}
	for _, name := range m.names {
		m.versions[name] = 1
	}
	if err := m.parallel(func(_ int, name string) error { return m.write(name) }); err != nil {
		return err
	}
	doc := testbed.Policy()
	logins := doc["roles"].(map[string]any)["payroll-ops"].(map[string]any)["batch_users"].(map[string]any)
	logins["unix"] = append(logins["unix"].([]string), "users/"+m.names[0])
	ctx := context.Background()
	if err := m.Vault.PutPolicy(ctx, testbed.Scope, testbed.Realm, doc); err != nil {
		return err
	}
	about, err := m.Vault.Root().KVv2(vaulttest.Mount).GetMetadata(ctx, testbed.Scope+"/policies/"+testbed.Realm)
	if err != nil {
		return err
	}
	m.policy = about.CurrentVersion
	none := map[string]int{}
	return errors.Join(m.index(), m.Vault.PutIndex(ctx, "platforms/unix", map[string]any{"batch_users": none, "policies": none}))
}

// firstSync starts a daemon that has nothing until it has everything, and
// compares that to reading the same documents and nothing else.
func (m *many) firstSync() error {
	bare, ours := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for range 3 {
		took, err := m.bareRead()
		if err != nil {
			return err
		}
		bare = min(bare, took)
		if err := errors.Join(m.Daemon.Stop(), os.RemoveAll(filepath.Join(m.State, "vault"))); err != nil {
			return err
		}
		begun := time.Now()
		if err := m.StartDaemon(); err != nil {
			return err
		}
		if err := m.complete(); err != nil {
			return err
		}
		ours = min(ours, time.Since(begun))
	}
	m.add(fmt.Sprintf("first sync of %d credentials, to a bare parallel reader (%v)", len(m.names), bare.Round(time.Millisecond)), float64(ours)/float64(bare), 1.3, "times")
	return nil
}

// bareRead reads every document over connections of its own, and looks at none.
func (m *many) bareRead() (time.Duration, error) {
	var login [2]string
	for i, file := range []string{"role_id", "secret_id"} {
		text, err := os.ReadFile(filepath.Join(m.Etc, file))
		if err != nil {
			return 0, err
		}
		login[i] = strings.TrimSpace(string(text))
	}
	token, err := m.Vault.Login(context.Background(), login[0], login[1])
	if err != nil {
		return 0, err
	}
	ca, err := os.ReadFile(m.Vault.CAFile)
	if err != nil {
		return 0, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	clients := make([]*http.Client, connections)
	for i := range clients {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxConnsPerHost: 1}
		defer transport.CloseIdleConnections()
		clients[i] = &http.Client{Transport: transport}
	}
	begun := time.Now()
	err = m.parallel(func(c int, name string) error {
		r, err := http.NewRequest("GET", m.Vault.Address+"/v1/"+vaulttest.Mount+"/data/"+testbed.Scope+"/batch_users/"+name, nil)
		if err != nil {
			return err
		}
		r.Header.Set("X-Vault-Token", token)
		res, err := clients[c].Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return fmt.Errorf("%s: status %d", name, res.StatusCode)
		}
		_, err = io.Copy(io.Discard, res.Body)
		return err
	})
	return time.Since(begun), err
}

// poll counts what is asked when nothing has changed.
func (m *many) poll() error {
	if _, err := m.polled(time.Now()); err != nil { // which has the index from now on
		return err
	}
	s, err := m.polled(time.Now())
	m.add("requests of a poll with nothing changed, per scope", float64(s.Requests)/2, 1, "")
	return err
}

// change measures how long a new password takes.
func (m *many) change() error {
	var work, whole []time.Duration
	for range 5 {
		name := m.names[0]
		before, err := m.status()
		if err != nil {
			return err
		}
		if err := m.caughtUp(); err != nil {
			return err
		}
		if err := m.put(name); err != nil {
			return err
		}
		if err := m.index(); err != nil {
			return err
		}
		changed := time.Now()
		err = m.told(func(e wire.Event) bool { return e.BatchUser == name && e.Version == int64(m.versions[name]) })
		if err != nil {
			return err
		}
		there := time.Now()
		var u wire.BatchUser
		if err := get(m.root, "/v1/batch-users/"+name, &u); err != nil {
			return err
		}
		if u.Version != int64(m.versions[name]) {
			return fmt.Errorf("%s is version %d, and said to be %d", name, u.Version, m.versions[name])
		}
		began, err := m.brought(before.Sync.LastAttempt)
		if err != nil {
			return err
		}
		work = append(work, there.Sub(began))
		whole = append(whole, there.Sub(changed))
	}
	slices.Sort(work)
	m.add("a changed password in force, from the begin of the poll that finds it", milli(work[len(work)/2]), 50, "ms")
	m.add("a changed password in force, at the worst", milli(slices.Max(whole)), milli(interval)+50, "ms")
	return nil
}

func milli(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// syncs counts how often an update waits for the disk.
func (m *many) syncs() error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		m.left = append(m.left, "writes to the disk of an update: no strace; as root: apt-get install strace")
		return nil
	}
	log := filepath.Join(m.Root, "strace.log")
	cmd := exec.Command(strace, "-f", "-y", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", log, "-p", fmt.Sprint(m.Daemon.PID()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		return errors.Join(fmt.Errorf("strace: %s", lines.Text()), cmd.Process.Kill(), cmd.Wait())
	}
	drained := make(chan struct{})
	go func() { // ends with strace
		defer close(drained)
		_, _ = io.Copy(io.Discard, said) // it is only in the way
	}()
	changed := time.Now()
	err = errors.Join(m.put(m.names[1]), m.index())
	for err == nil {
		var s wire.Sync
		if s, err = m.polled(changed); s.Changed == 1 {
			break
		}
		changed = s.LastAttempt
	}
	err = errors.Join(err, cmd.Process.Signal(os.Interrupt))
	<-drained
	_ = cmd.Wait() // it was interrupted
	text, readErr := os.ReadFile(log)
	if err = errors.Join(err, readErr); err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, m.State+"/vault") && !strings.Contains(line, "resumed") {
			n++
		}
	}
	if n == 0 {
		return fmt.Errorf("an update did not reach the disk: %s", text)
	}
	m.add("fsyncs of an update", float64(n), 2, "")
	return nil
}

// start measures a daemon that begins with what it has.
func (m *many) start() error {
	if err := m.StopVault(); err != nil {
		return err
	}
	body := marshal(wire.Retrieve{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}})
	var took []time.Duration
	for range 7 {
		if err := m.Daemon.Stop(); err != nil {
			return err
		}
		begun := time.Now()
		if err := m.StartDaemon(); err != nil {
			return err
		}
		for deadline := begun.Add(patience); ; time.Sleep(time.Millisecond) {
			if post(m.lsam, "/v1/batch-users/"+m.names[0]+"/retrieve", body, 200, nil) == nil {
				break
			}
			if time.Now().After(deadline) {
				return errors.New("the daemon does not serve from its local vault")
			}
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	m.add("start from the local vault to the first password", milli(took[len(took)/2]), 100, "ms")
	return m.ResumeVault()
}

// memory reads what the daemon holds at rest, and at most while it works.
func (m *many) memory() error {
	if err := m.RestartDaemon(); err != nil {
		return err
	}
	for range 2 {
		if _, err := m.polled(time.Now()); err != nil {
			return err
		}
	}
	// At rest is between polls, which are much more often here than elsewhere. Nobody asks anything now.
	var samples []float64
	for range 30 {
		time.Sleep(interval / 10)
		kib, err := m.kilobytes("VmRSS:")
		if err != nil {
			return err
		}
		samples = append(samples, kib)
	}
	slices.Sort(samples)
	idle := samples[len(samples)/2]
	m.add("memory at rest", idle/1024, 25, "MiB")
	const forgetPeak = "5"
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.Daemon.PID()), []byte(forgetPeak), 0); err != nil {
		return err
	}
	question := marshal(wire.Authorize{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll"})
	err := m.parallel(func(int, string) error { return post(m.lsam, "/v1/authorize", question, 200, nil) })
	if err != nil {
		return err
	}
	peak, err := m.kilobytes("VmHWM:")
	m.add("memory at most under load", peak/1024, 40, "MiB")
	return err
}

// kilobytes reads a line of the daemon's /proc/PID/status.
func (m *many) kilobytes(name string) (n float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Daemon.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, err = fmt.Sscan(rest, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("no %s", name)
}
