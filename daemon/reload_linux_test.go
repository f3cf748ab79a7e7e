package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// configured is what an audit record says of a configuration.
type configured struct {
	Kind, By, SHA, Old       string
	Changed, Restart, Faults string
	User                     string
}

// configurations are the audit records about the service and its configuration, in their order.
func configurations(t *testing.T, b *testbed.Bed) (list []configured) {
	t.Helper()
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		kind := r.Text("kind")
		if !strings.HasPrefix(kind, "config.") && !strings.HasPrefix(kind, "service.") {
			continue
		}
		c, _ := r["config"].(map[string]any)
		peer, _ := r["peer"].(map[string]any)
		words := func(name string) string {
			list, _ := c[name].([]any)
			return strings.Trim(fmt.Sprint(list), "[]")
		}
		text := func(name string) string { s, _ := c[name].(string); return s }
		user, _ := peer["user"].(string)
		list = append(list, configured{kind, text("by"), text("sha256"), text("old_sha256"), words("changed"), words("restart_needed"), words("faults"), user})
	}
	return list
}

// recorded waits until the audit has a record of the kind after the first n about configurations, and returns it.
func recorded(t *testing.T, b *testbed.Bed, n int, kind string) configured {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all := configurations(t, b)
		if i := slices.IndexFunc(all[n:], func(c configured) bool { return c.Kind == kind }); i >= 0 {
			return all[n+i]
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %d records: %+v", kind, n, all)
		}
	}
}

// sumOf is what the auditor's own tools say of the configuration's files.
func sumOf(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", `sha256sum "$0/batchwarden.yaml" $(ls "$0"/clients.d/*.yaml 2>/dev/null) | sha256sum`, b.Etc).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out[:64])
}

func configText(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	text, err := os.ReadFile(b.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// replace puts another file in the place of the configuration.
func replace(t *testing.T, path, text string) {
	t.Helper()
	ok(t, os.WriteFile(path+".tmp", []byte(text), 0o644), os.Rename(path+".tmp", path))
}

func ok(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func reload(t *testing.T, b *testbed.Bed) wire.Reload {
	t.Helper()
	return read[wire.Reload](t, call(t, b, testbed.Root, "POST", "/v1/reload", nil))
}

func amiss(t *testing.T, b *testbed.Bed, code string) (found []wire.Finding) {
	t.Helper()
	s, err := b.Status()
	ok(t, err)
	for _, p := range s.Problems {
		if p.Code == code {
			found = append(found, p)
		}
	}
	return found
}

// unwatched is a bed whose daemon may not list the directory of its configuration, so that it cannot watch it: what is
// read again there was asked for.
func unwatched(t *testing.T) *testbed.Bed {
	t.Helper()
	b := testbed.New(t, testbed.Options{})
	ok(t, os.Chmod(b.Etc, 0o711), b.RestartDaemon(), b.WaitOnline())
	if p := amiss(t, b, wire.ConfigUnwatched); len(p) != 1 || !strings.Contains(p[0].Detail, "permission denied") {
		t.Fatalf("problems: %+v", p)
	}
	return b
}

func withClient(text, name, user string) string {
	return strings.Replace(text, "clients:\n", "clients:\n  - {name: "+name+", match: {user: "+user+"}, realms: [opcon], may: [authorize], subjects: {users: [\"*\"]}, batch_users: [\"*\"]}\n", 1)
}

// TestReload: by operators and by SIGHUP, on a machine where files cannot be watched.
func TestReload(t *testing.T) {
	b := unwatched(t)
	first := configText(t, b)
	begun := configurations(t, b)
	if len(begun) != 3 || begun[0].Kind != "service.started" || begun[1].Kind != "service.stopped" || begun[2].SHA != sumOf(t, b) {
		t.Fatalf("records: %+v", begun)
	}
	if r := reload(t, b); r.Outcome != wire.ReloadUnchanged || len(r.Changed)+len(r.RestartNeeded) > 0 || r.SHA256 != sumOf(t, b) || r.InForce != r.SHA256 {
		t.Errorf("unchanged: %+v", r)
	}
	if r := b.CLI(testbed.Root, "reload"); r.Code != 0 || r.Out != "Read again: nothing is another than before.\n" {
		t.Errorf("unchanged: %+v", r)
	}
	if n := len(configurations(t, b)); n != 3 {
		t.Errorf("nothing changed, and there are %d records", n)
	}
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/reload", nil), 403, wire.CallerForbidden)
	if r := b.CLI(b.Accounts.LSAM, "reload"); r.Code != 77 {
		t.Errorf("by a client: %+v", r)
	}

	t.Run("a client that is added and removed, on one connection", func(t *testing.T) {
		stranger := b.Client(b.Accounts.Stranger)
		defer stranger.CloseIdleConnections()
		stranger.Transport.(*http.Transport).MaxConnsPerHost = 1
		ask := func() (status int) {
			text, err := json.Marshal(question(testbed.User))
			ok(t, err)
			resp, err := stranger.Post("http://batchwarden/v1/authorize", "application/json", bytes.NewReader(text))
			ok(t, err)
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			ok(t, err)
			return resp.StatusCode
		}
		if s := ask(); s != 403 {
			t.Errorf("before: %d", s)
		}
		replace(t, b.ConfigFile(), withClient(first, "more", b.Accounts.Stranger.Name))
		if r := reload(t, b); r.Outcome != wire.ReloadChanged || !slices.Equal(r.Changed, []string{"clients.more"}) {
			t.Errorf("added: %+v", r)
		}
		if s := ask(); s != 200 {
			t.Errorf("added: %d", s)
		}
		waiting := make(chan int, 1)
		go func() {
			a, err := b.Call(b.Accounts.Stranger, "GET", "/v1/events?wait=50s&after=0", nil)
			for err == nil && a.Status == 200 { // until it is told that it is nobody any more
				var e wire.Events
				if err = json.Unmarshal(a.Body, &e); err == nil {
					a, err = b.Call(b.Accounts.Stranger, "GET", fmt.Sprintf("/v1/events?wait=50s&after=%d", e.Next), nil)
				}
			}
			waiting <- a.Status
		}()
		replace(t, b.ConfigFile(), first)
		if r := reload(t, b); r.Outcome != wire.ReloadChanged || !slices.Equal(r.Changed, []string{"clients.more"}) {
			t.Errorf("removed: %+v", r)
		}
		if s := ask(); s != 403 {
			t.Errorf("removed: %d on the open connection", s)
		}
		if s := <-waiting; s != 403 {
			t.Errorf("removed: a request that waited for events got %d", s)
		}
		all := configurations(t, b)
		if c := all[len(all)-1]; c.Kind != "config.changed" || c.By != "operator" || c.User != "root" || c.Changed != "clients.more" || c.SHA != sumOf(t, b) || c.Old != all[len(all)-2].SHA {
			t.Errorf("record: %+v", c)
		}
	})
	t.Run("SIGHUP, and what is logged", func(t *testing.T) {
		n := len(configurations(t, b))
		replace(t, b.ConfigFile(), first+"log: {level: error}\n")
		ok(t, b.Daemon.Signal(syscall.SIGHUP))
		quiet := recorded(t, b, n, "config.changed")
		if quiet.By != "signal" || quiet.Changed != "log.level" || quiet.User != "" {
			t.Errorf("record: %+v", quiet)
		}
		replace(t, b.ConfigFile(), first)
		loud := reload(t, b)
		if log := b.Daemon.LogText(); strings.Contains(log, quiet.SHA) || !strings.Contains(log, loud.SHA256) {
			t.Errorf("%s was logged, or %s was not", quiet.SHA, loud.SHA256)
		}
	})
	t.Run("a realm is added, and its policy comes at once", func(t *testing.T) {
		var doc map[string]any
		ok(t, json.Unmarshal([]byte(automicPolicy), &doc))
		ok(t, b.Vault.PutPolicy(t.Context(), testbed.Scope, "automic", doc)) // and nobody syncs
		at := events(t, b, testbed.Root, "").Next
		text := strings.Replace(first, "realms:\n", "realms:\n  automic: {model: automic, agent: UX_DB01}\n", 1)
		replace(t, b.ConfigFile(), strings.Replace(text, "realms: [opcon]", "realms: [opcon, automic]", 1))
		if r := reload(t, b); !slices.Equal(r.Changed, []string{"realms.automic", "clients.lsam"}) {
			t.Errorf("got %+v", r)
		}
		seen := told(t, b, at, func(e wire.Event) bool { return e.Type == wire.PolicyActivated && e.Realm == "automic" })
		if slices.ContainsFunc(seen.Events, func(e wire.Event) bool { return e.Type == wire.ConfigChanged }) {
			t.Error("a client is told of the configuration")
		}
		if all := events(t, b, testbed.Root, fmt.Sprintf("after=%d", at)).Events; !slices.ContainsFunc(all, func(e wire.Event) bool {
			return e.Type == wire.ConfigChanged && e.Detail == "changed: realms.automic, clients.lsam"
		}) {
			t.Errorf("an operator is not: %+v", all)
		}
		d := read[wire.Decision](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", m{"realm": "automic", "subject": m{"user": "JDOE/DEPT"}, "action": "R", "object": m{"type": "JOBS", "name": "PAY.RUN", "host": "UX_DB01", "login": "LOGIN.PAYROLL"}}))
		if !d.Allowed {
			t.Errorf("decided: %+v", d)
		}
		replace(t, b.ConfigFile(), first)
		reload(t, b)
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", m{"realm": "automic", "subject": m{"user": "JDOE/DEPT"}}), 400, wire.RealmUnknown)
	})
	t.Run("what needs a restart waits, and the rest is done", func(t *testing.T) {
		replace(t, b.ConfigFile(), withClient(strings.Replace(first, "machine: db01", "machine: db02", 1), "more", b.Accounts.Stranger.Name)+"log: {format: text}\n")
		r := reload(t, b)
		if r.Outcome != wire.ReloadChanged || !slices.Equal(r.Changed, []string{"clients.more"}) || !slices.Equal(r.RestartNeeded, []string{"machine", "log.format"}) {
			t.Errorf("got %+v", r)
		}
		if p := amiss(t, b, wire.ConfigRestartNeeded); len(p) != 1 || !strings.Contains(p[0].Detail, "machine, log.format") {
			t.Errorf("problems: %+v", p)
		}
		if s, err := b.Status(); err != nil || s.Machine != testbed.Machine {
			t.Errorf("machine %q, %v", s.Machine, err)
		}
		want(t, call(t, b, b.Accounts.Stranger, "POST", "/v1/authorize", question(testbed.User)), 200, "")
		// The sync worker reads the files too: it does not fetch another machine's documents for this one.
		if s, err := b.Sync(); err != nil || s.Outcome == "ok" || !strings.Contains(s.Detail, `"db02"`) {
			t.Errorf("sync: %+v, %v", s, err)
		}
		if again := b.CLI(testbed.Root, "reload"); again.Code != 0 || !strings.Contains(again.Out, "restarted: machine, log.format.") {
			t.Errorf("again: %+v", again)
		}
		replace(t, b.ConfigFile(), first)
		if r := reload(t, b); len(r.RestartNeeded) > 0 || len(amiss(t, b, wire.ConfigRestartNeeded)) > 0 {
			t.Errorf("as before: %+v", r)
		}
		synced(t, b)
	})
	t.Run("a faulty one is not taken, and every fault is told", func(t *testing.T) {
		n := len(configurations(t, b))
		replace(t, b.ConfigFile(), strings.Replace(withClient(first, "more", b.Accounts.Stranger.Name), "mount: batch", "mount: /secret-word/", 1)+"log: {level: loud}\n")
		ok(t, os.Mkdir(b.Etc+"/clients.d", 0o755))
		replace(t, b.Etc+"/clients.d/x.yaml", "version: 1\nclients:\n  - name: lsam\n    match: {}\n")
		r := reload(t, b)
		if r.Outcome != wire.ReloadRefused || len(r.Changed) > 0 || r.InForce == r.SHA256 {
			t.Errorf("got %+v", r)
		}
		text := fmt.Sprint(r.Faults)
		for _, part := range []string{"vault.mount", "log.level", "clients[0].name", "clients[0].match", "x.yaml 3"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s is not among the faults: %s", part, text)
			}
		}
		if cli := b.CLI(testbed.Root, "reload"); cli.Code != 78 || strings.Count(cli.Out, "\n") != 1+len(r.Faults) {
			t.Errorf("CLI: %+v", cli)
		}
		if p := amiss(t, b, wire.ConfigFaulty); len(p) != len(r.Faults) {
			t.Errorf("problems: %+v", p)
		}
		c := recorded(t, b, n, "config.refused")
		if c.SHA != sumOf(t, b) || c.Old != r.InForce || !strings.Contains(c.Faults, "vault.mount") || strings.Contains(c.Faults, "secret-word") {
			t.Errorf("record: %+v", c)
		}
		want(t, call(t, b, b.Accounts.Stranger, "POST", "/v1/authorize", question(testbed.User)), 403, wire.CallerUnknown)
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", question(testbed.User)), 200, "")
		ok(t, os.RemoveAll(b.Etc+"/clients.d"))
		replace(t, b.ConfigFile(), first)
		if r := reload(t, b); r.Outcome != wire.ReloadUnchanged || len(amiss(t, b, wire.ConfigFaulty)) > 0 {
			t.Errorf("mended: %+v", r)
		}
	})
	if out := b.CLI(testbed.Root, "audit", "tail", "-n", "200", b.AuditFile()); !strings.Contains(out.Out, "clients.more (by an operator)") || !strings.Contains(out.Out, "the service was started") {
		t.Errorf("audit tail: %+v", out)
	}
}

// TestReloadByFile: however the files are changed, that is noticed.
func TestReloadByFile(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	first, file := configText(t, b), b.ConfigFile()
	sh := func(script string) func() error {
		return func() error {
			out, err := exec.Command("/bin/sh", "-ec", script, b.Etc).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	for _, c := range []struct {
		name    string
		do      func() error
		changed string
	}{
		{"sed -i", sh(`sed -i 's/agent: DB01_LSAM/agent: OTHER/' "$0/batchwarden.yaml"`), "realms.opcon"},
		{"vim: the old one becomes the backup", sh(`cd "$0"; mv batchwarden.yaml batchwarden.yaml~; sed s/OTHER/DB01_LSAM/ batchwarden.yaml~ > batchwarden.yaml; rm batchwarden.yaml~`), "realms.opcon"},
		{"in place", func() error { return os.WriteFile(file, []byte(first+"log: {level: warn}\n"), 0o644) }, "log.level"},
		{"in clients.d, which there was not", sh(`mkdir "$0/clients.d"; printf 'version: 1\nclients:\n  - {name: more, match: {user: root}, realms: [opcon], may: [authorize]}\n' > "$0/clients.d/more.yaml"`), "clients.more"},
		{"a file of clients.d is removed", sh(`rm "$0/clients.d/more.yaml"`), "clients.more"},
		{"a mounted ConfigMap", sh(`cd "$0"; mkdir ..1 ..2; cp batchwarden.yaml ..1; sed s/warn/debug/ batchwarden.yaml > ..2/batchwarden.yaml
			ln -s ..1 ..data; ln -s ..data/batchwarden.yaml l; mv -T l batchwarden.yaml; ln -s ..2 ..tmp; mv -T ..tmp ..data`), "log.level"},
		{"and its next version", sh(`cd "$0"; mkdir ..3; sed s/debug/info/ ..2/batchwarden.yaml > ..3/batchwarden.yaml; ln -s ..3 ..tmp; mv -T ..tmp ..data; rm -r ..1 ..2`), "log.level"},
		{"one file again", func() error {
			return errors.Join(os.WriteFile(file+".new", []byte(first+"jobs: {max_running: 1}\n"), 0o644), os.Rename(file+".new", file))
		}, "jobs.max_running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := len(configurations(t, b))
			ok(t, c.do())
			got := recorded(t, b, n, "config.changed")
			if got.Changed != c.changed || got.By != "file" || got.SHA != sumOf(t, b) {
				t.Errorf("record: %+v, want %s", got, c.changed)
			}
		})
	}
	t.Run("the launcher has its part too", func(t *testing.T) {
		launch := func(id string) testbed.Answer {
			return call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(m{"id": id, "command": []string{"/bin/sleep", "60"}}))
		}
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.Launcher.LogText(), "jobs.max_running"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the launcher says nothing of jobs.max_running")
			}
		}
		want(t, launch("one"), 201, "")
		want(t, launch("two"), 429, wire.Overloaded)
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/one/signal", m{"signal": "KILL"}), 200, "")
		ended(t, b, "one")
	})
	t.Run("an editor that writes in two steps", func(t *testing.T) {
		n := len(configurations(t, b))
		next := first + "log: {level: error}\n"
		ok(t, os.WriteFile(file, []byte(next[:len(next)/2]+"\n  :"), 0o644))
		if c := recorded(t, b, n, "config.refused"); c.By != "file" || c.Old == c.SHA {
			t.Errorf("half of it: %+v", c)
		}
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", question(testbed.User)), 200, "")
		ok(t, os.WriteFile(file, []byte(next), 0o644))
		if c := recorded(t, b, n, "config.changed"); c.Changed != "jobs.max_running log.level" {
			t.Errorf("all of it: %+v", c)
		}
		reload(t, b) // which comes after the other: that was written down before it was done
		if p := amiss(t, b, wire.ConfigFaulty); len(p) > 0 {
			t.Errorf("problems: %+v", p)
		}
	})
	t.Run("200 edits are few reloads, and the last one wins", func(t *testing.T) {
		n := len(configurations(t, b))
		for i := range 200 {
			ok(t, os.WriteFile(file, []byte(first+fmt.Sprintf("jobs: {max_running: %d}\n", 1000+i)), 0o644))
		}
		last := sumOf(t, b)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			all := configurations(t, b)
			if all[len(all)-1].SHA == last && all[len(all)-1].Kind == "config.changed" {
				if reloads := len(all) - n; reloads > 5 {
					t.Errorf("%d reloads", reloads)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the last one is not in force: %+v", all[n:])
			}
		}
	})
	t.Run("limits.yaml", func(t *testing.T) {
		limits, err := os.ReadFile(b.LimitsFile())
		ok(t, err)
		ok(t, os.WriteFile(b.LimitsFile(), []byte("version: 1\nrequester: [x]\n"), 0o600))
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // no launch asks for it
			if p := amiss(t, b, "launcher.problem"); len(p) == 1 && strings.Contains(p[0].Detail, "limits.yaml:2") && strings.Contains(b.Launcher.LogText(), "limits.yaml:2") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no problem: %s", b.Launcher.LogTail(5))
			}
		}
		ok(t, os.WriteFile(b.LimitsFile(), limits, 0o600))
	})
	n := len(configurations(t, b))
	ok(t, b.RestartDaemon())
	if all := configurations(t, b)[n:]; len(all) != 2 || all[0].Kind != "service.stopped" || all[1].Kind != "service.started" || all[1].SHA != sumOf(t, b) {
		t.Errorf("restart: %+v", all)
	}
}

// TestReloadUnderLoad: eight connections ask without a pause while the configuration changes 50 times. The client's name,
// its subjects and the realm's agent change together: a request that saw some of one and some of the other would be denied.
func TestReloadUnderLoad(t *testing.T) {
	b := unwatched(t)
	first := configText(t, b)
	other := strings.NewReplacer("agent: "+testbed.Agent, "agent: NOBODY", `subjects: {users: ["*"]}`, `subjects: {users: [`+testbed.Nobody+`]}`, "name: lsam", "name: lsam2").Replace(first)
	// By first jdoe is allowed, and mallory denied by the policy. By other the entry does not cover jdoe, and mallory is
	// denied by the policy. jdoe denied by the policy, which has no machine NOBODY, is half of each.
	text, err := json.Marshal(question(testbed.User))
	ok(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asking sync.WaitGroup
	var asked, covered, uncovered atomic.Int64
	for range 8 {
		asking.Go(func() { // ends with ctx
			c := b.Client(b.Accounts.LSAM)
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				resp, err := c.Post("http://batchwarden/v1/authorize", "application/json", bytes.NewReader(text))
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				body, _ := io.ReadAll(resp.Body) // what is missing is seen below
				resp.Body.Close()
				asked.Add(1)
				switch a := (testbed.Answer{Status: resp.StatusCode, Body: body}); {
				case a.Status == 200 && bytes.Contains(body, []byte(`"allowed":true`)):
					covered.Add(1)
				case a.Status == 403 && a.Code() == wire.CallerForbidden:
					uncovered.Add(1)
				default:
					t.Errorf("neither of the two configurations says that: %d %s", a.Status, body)
					return
				}
			}
		})
	}
	for i := range 50 {
		now := first
		if i%2 == 0 {
			now = other
		}
		replace(t, b.ConfigFile(), now)
		if r := reload(t, b); r.Outcome == wire.ReloadRefused { // unchanged: it was seen just before
			t.Errorf("%d: %+v", i, r)
		}
		status, code := 200, ""
		if i%2 == 0 {
			status, code = 403, wire.CallerForbidden
		}
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", question(testbed.User)), status, code) // it is in force when reload answers
	}
	stop()
	asking.Wait()
	t.Logf("%d requests: %d by the one, %d by the other", asked.Load(), covered.Load(), uncovered.Load())
	if covered.Load() == 0 || uncovered.Load() == 0 {
		t.Error("one of the two was never seen")
	}
	mixed := 0
	records, err := b.Audit()
	ok(t, err)
	for _, r := range records {
		if r.Text("kind") == "authorize" && (r.Text("verdict") == "allow") != (r.Text("client") == "lsam") {
			mixed++
		}
	}
	if mixed > 0 {
		t.Errorf("%d records mix the two", mixed)
	}
}
