package daemon_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
)

// held is what a program holds of the system.
type held struct {
	descriptors int
	threads     int
	zombies     int
	memory      int64 // octets of its own, which are not a file's
}

func (h held) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %.1f MiB, %d zombies", h.descriptors, h.threads, float64(h.memory)/(1<<20), h.zombies)
}

func holds(t *testing.T, p *testbed.Process) (h held) {
	t.Helper()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(descriptors)
	h.threads = int(inStatus(t, p.PID(), "Threads"))
	h.memory = inStatus(t, p.PID(), "RssAnon") << 10
	stats, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range stats {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		after := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // state, parent
		if after[0] == "Z" && after[1] == strconv.Itoa(p.PID()) {
			h.zombies++
		}
	}
	return h
}

// inStatus is a number of /proc/PID/status.
func inStatus(t *testing.T, pid int, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name+":" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", name, text)
	return 0
}

// atRest is what the program holds once its last connections are gone.
func atRest(t *testing.T, p *testbed.Process) (h held) {
	t.Helper()
	h = holds(t, p)
	for range 20 {
		if now := holds(t, p); now.descriptors < h.descriptors {
			h = now
		}
		time.Sleep(10 * time.Millisecond)
	}
	return h
}

// settled waits until the programs hold no more descriptors than at first, and no zombie, and returns what they hold.
func settled(t *testing.T, b *testbed.Bed, daemon, launcher held) (d, l held) {
	t.Helper()
	quiet := 0
	slow := time.AfterFunc(15*time.Second, func() {
		t.Logf("still held: %s", strings.Join(append(open(b.Daemon), open(b.Launcher)...), "\n"))
	})
	defer slow.Stop()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d, l = holds(t, b.Daemon), holds(t, b.Launcher)
		if d.descriptors > daemon.descriptors || l.descriptors > launcher.descriptors || d.zombies+l.zombies > 0 {
			quiet = 0
		} else if quiet++; quiet == 5 { // and nothing comes up again
			return d, l
		}
		if time.Now().After(deadline) {
			t.Errorf("the daemon holds %s (at first %s), the launcher %s (at first %s)\n%s", d, daemon, l, launcher,
				strings.Join(append(open(b.Daemon), open(b.Launcher)...), "\n"))
			return d, l
		}
	}
}

// open lists what a program's descriptors are.
func open(p *testbed.Process) (list []string) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	entries, _ := os.ReadDir(dir) // of a program that has ended: none
	for _, e := range entries {
		target, _ := os.Readlink(dir + "/" + e.Name())
		list = append(list, p.Name+" "+e.Name()+" "+target)
	}
	return list
}

var (
	goroutine = regexp.MustCompile(`(?m)^goroutine [1-9]\d* .*\[`) // 0 is a thread's own
	createdBy = regexp.MustCompile(`(?m)^created by (\S+)`)
)

// goroutines ends the program by the signal at which the runtime writes all of them down, and counts them by who
// started them.
func goroutines(t *testing.T, p *testbed.Process) map[string]int {
	t.Helper()
	before := len(p.LogText())
	if err := p.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	text := p.LogText()[before:]
	starts := goroutine.FindAllStringIndex(text, -1)
	if len(starts) == 0 {
		t.Fatalf("%s wrote no goroutine down: %s", p.Name, text)
	}
	by := map[string]int{}
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		name := "main"
		if m := createdBy.FindStringSubmatch(text[at[0]:end]); m != nil {
			name = m[1]
		}
		if !strings.HasPrefix(name, "runtime.") { // how many of the collector's there are is its own matter
			by[name]++
		}
	}
	return by
}

// sum is how many there are of all.
func sum(by map[string]int) (n int) {
	for _, m := range by {
		n += m
	}
	return n
}

// grown names what there is more of than before.
func grown(before, after map[string]int) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if after[name] > before[name] {
			list = append(list, fmt.Sprintf("%s: %d, before %d", name, after[name], before[name]))
		}
	}
	return list
}

// plain is a request as it goes over the connection.
func plain(method, path string, body []byte) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", method, path, len(body))
	return append([]byte(head), body...)
}

// discard reads what a connection says until it ends.
func discard(from io.Reader) {
	_, _ = io.Copy(io.Discard, from) // however it ends
}
