package daemon_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestSoakKilledWhileStarting: the launcher is killed at any moment of many starts. Asked again, each job is one that
// runs, has ended or is lost; none ran twice, what runs is shown, and of what is lost nothing runs.
func TestSoakKilledWhileStarting(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	random := rand.New(rand.NewPCG(testbed.Seed(), 7))
	runs := filepath.Join(b.Accounts.Payroll.Home, "runs")
	states := map[string]int{}
	begun := time.Now()
	for round := 0; (round < 8 || time.Since(begun) < testbed.Soak(0)) && !t.Failed(); round++ {
		if err := os.RemoveAll(runs); err != nil {
			t.Fatal(err)
		}
		what := func(i int) map[string]any {
			id := fmt.Sprintf("r%d-%d", round, i)
			return body(map[string]any{"id": id, "command": []string{"/bin/sh", "-c", "echo " + id + " >>" + runs + "; exec sleep 600"}})
		}
		const jobs = 24
		var asking sync.WaitGroup
		for i := range jobs {
			asking.Go(func() { _, _ = b.Call(b.Accounts.LSAM, "POST", "/v1/jobs", what(i)) }) // whatever it says, it is asked again
		}
		time.Sleep(time.Duration(random.Int64N(int64(120 * time.Millisecond)))) // any moment is as good as another
		b.Launcher.Kill()
		if err := b.StartLauncher(); err != nil {
			t.Fatal(err)
		}
		asking.Wait()
		if err := b.WaitHealthy(); err != nil {
			t.Fatal(err)
		}
		pids := map[int]string{}
		for i := range jobs {
			var job wire.Job
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", what(i))
				if a.Status == 200 || a.Status == 201 {
					job = read[wire.Job](t, a)
					break
				}
				if a.Status != 503 || time.Now().After(deadline) {
					t.Fatalf("asked again: %d %s", a.Status, a.Body)
				}
			}
			if job.State == wire.Starting || job.State == wire.Running && gone(job.PID) {
				if job = ended(t, b, job.ID); job.State != wire.Lost { // its end was just being looked into
					t.Errorf("%+v", job)
				}
			}
			if job.State == wire.Running {
				pids[job.PID] = job.ID
			}
			states[job.State]++
		}
		// A shell says so before it becomes sleep, and is the same process.
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			text, err := os.ReadFile(runs)
			if err != nil && len(pids) > 0 {
				continue
			}
			missing := 0
			for _, id := range pids {
				if n := strings.Count("\n"+strings.ReplaceAll(string(text), "\n", "\n\n"), "\n"+id+"\n"); n > 1 {
					t.Errorf("%s ran %d times", id, n)
				} else if n == 0 {
					missing++
				}
			}
			if missing == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d jobs that are shown as running have not begun", missing)
			}
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var strange []string
			for _, pid := range strings.Fields(b.Command(testbed.Root, "pgrep", "-u", b.Accounts.Payroll.Name).Out) {
				var n int
				if _, err := fmt.Sscan(pid, &n); err == nil && pids[n] == "" {
					strange = append(strange, pid)
				}
			}
			if len(strange) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("processes of no job that is shown as running: %v", strange)
			}
		}
		if text, err := os.ReadFile(runs); err == nil {
			for i := range jobs {
				if n := strings.Count("\n"+strings.ReplaceAll(string(text), "\n", "\n\n"), fmt.Sprintf("\nr%d-%d\n", round, i)); n > 1 {
					t.Errorf("job %d ran %d times", i, n)
				}
			}
		}
		for _, id := range pids {
			signal(t, b, id, "KILL", "")
		}
		for _, id := range pids {
			if job := ended(t, b, id); job.State != wire.Exited || job.Signal != "KILL" {
				t.Errorf("%+v", job)
			}
		}
	}
	t.Logf("states after a launcher that was killed: %v", states)
	if states[wire.Running] == 0 {
		t.Error("no job was running: this shows nothing")
	}
}
