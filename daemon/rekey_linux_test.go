package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// rekeyed runs "batchwarden setup rekey" as root.
func rekeyed(b *testbed.Bed, flags ...string) testbed.Result {
	return b.CLI(testbed.Root, append([]string{"--json", "setup", "rekey", "--config", b.ConfigFile()}, flags...)...)
}

// useKey makes the configuration name this key.
func useKey(t *testing.T, b *testbed.Bed, key string) {
	t.Helper()
	text, err := os.ReadFile(b.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		if strings.HasPrefix(lines[i], "local_vault:") {
			lines[i] = fmt.Sprintf("local_vault: {key: %q}", key)
		}
	}
	if err := os.WriteFile(b.ConfigFile(), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// opens starts the daemon, which must serve what it knew, and stops it again.
func opens(t *testing.T, b *testbed.Bed, keyID string) {
	t.Helper()
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	s, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if s.LocalVault.KeyID != keyID || s.LocalVault.Quarantined != 0 || s.BatchUsers.Ready == 0 {
		t.Errorf("local vault %+v, batch users %+v, want key %s", s.LocalVault, s.BatchUsers, keyID)
	}
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
}

// The key is changed while requests go on. From then on either key opens the
// vault, also after a crash, until the configured one has; then the other does
// not any more.
func TestRekey(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	before, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	oldKey, newKey := "keyfile:"+b.State+"/key", "keyfile:"+b.State+"/key2"
	stop, busy := make(chan struct{}), make(chan error)
	go func() { // ends when stop is closed
		var err error
		for n := 0; ; n++ {
			select {
			case <-stop:
				if err == nil && n == 0 {
					err = fmt.Errorf("no request was made meanwhile")
				}
				busy <- err
				return
			default:
			}
			a, callErr := b.Call(b.Accounts.LSAM, "POST", "/v1/jobs", body(nil))
			if err == nil && (callErr != nil || a.Status != 201) {
				err = fmt.Errorf("request %d: %d %s, %v", n, a.Status, a.Body, callErr)
			}
		}
	}()
	r := rekeyed(b, "--to", newKey)
	close(stop)
	if err := <-busy; err != nil {
		t.Errorf("during the change: %v", err)
	}
	var said struct {
		Key, Kind, ID, File string
		OldID               string `json:"old_id"`
	}
	if err := json.Unmarshal([]byte(r.Out), &said); r.Code != 0 || err != nil {
		t.Fatalf("rekey: %+v, %v", r, err)
	}
	if said.Key != newKey || said.OldID != before.LocalVault.KeyID || said.ID == said.OldID || said.ID == "" {
		t.Errorf("it says %+v, the key was %s", said, before.LocalVault.KeyID)
	}
	record := audited(t, b, map[string]string{"kind": "rekey", "verdict": "allow"})
	keys, _ := record["host_key"].(map[string]any)
	if keys["id"] != said.ID || keys["old_id"] != said.OldID || keys["kind"] != "keyfile" {
		t.Errorf("audited %v", record)
	}
	nowhere(t, b, b.State+"/key2")
	if a := call(t, b, b.Accounts.LSAM, "GET", "/v1/batch-users", nil); a.Status != 200 {
		t.Errorf("after the change: %d %s", a.Status, a.Body)
	}

	b.Daemon.Kill()
	vault, crashed := b.State+"/vault", b.Root+"/crashed"
	if r := b.Command(testbed.Root, "cp", "-a", vault, crashed); r.Code != 0 {
		t.Fatal(r.Err)
	}
	opens(t, b, said.OldID)
	if r := b.Command(testbed.Root, "sh", "-c", "rm -r "+vault+" && mv "+crashed+" "+vault); r.Code != 0 {
		t.Fatal(r.Err)
	}
	useKey(t, b, newKey)
	opens(t, b, said.ID)
	opens(t, b, said.ID)
	useKey(t, b, oldKey)
	if r := b.Command(b.Accounts.Daemon, "batchwardend", "--config", b.ConfigFile()); r.Code != 78 || !strings.Contains(r.Err, "key") {
		t.Errorf("with the old key: exit %d, want 78: %s", r.Code, r.Err)
	}
	useKey(t, b, newKey)
	opens(t, b, said.ID)
}

// nowhere fails if the key is in anything that was written down.
func nowhere(t *testing.T, b *testbed.Bed, file string) {
	t.Helper()
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, path := range []string{b.AuditFile(), b.Daemon.Log, b.Launcher.Log} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	for i := range len(key) - 7 {
		part := key[i : i+8]
		if bytes.Contains(all, part) || bytes.Contains(all, []byte(hex.EncodeToString(part))) {
			t.Fatal("the key was written into the audit file or a log")
		}
	}
}

// A step that fails leaves everything as it was, and no new file.
func TestRekeyFails(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	absent := func(t *testing.T, path string) {
		t.Helper()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	t.Run("the file is there already", func(t *testing.T) {
		old, err := os.ReadFile(b.State + "/key")
		if err != nil {
			t.Fatal(err)
		}
		if r := rekeyed(b, "--to", "keyfile:"+b.State+"/key"); r.Code != 1 || !strings.Contains(r.Err, "left alone") {
			t.Errorf("%+v", r)
		}
		if now, err := os.ReadFile(b.State + "/key"); err != nil || !bytes.Equal(now, old) {
			t.Errorf("it was touched: %v", err)
		}
	})
	t.Run("not root", func(t *testing.T) {
		r := b.CLI(b.Accounts.Daemon, "setup", "rekey", "--config", b.ConfigFile(), "--to", "keyfile:"+b.State+"/mine")
		if r.Code != 77 {
			t.Errorf("%+v", r)
		}
		absent(t, b.State+"/mine")
	})
	t.Run("wrong flags", func(t *testing.T) {
		for _, to := range []string{"", "keyfile:key", "tpm2:key"} {
			if r := rekeyed(b, "--to", to); r.Code != 64 {
				t.Errorf("--to %q: %+v", to, r)
			}
		}
		if r := rekeyed(b, "--to", "paper"); r.Code != 1 || !strings.Contains(r.Err, `"paper" is no key`) {
			t.Errorf("%+v", r)
		}
		if r := b.CLI(testbed.Root, "setup", "rekey", "--to", "keyfile:/x", "--config", b.Etc+"/none"); r.Code != 78 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the service refuses: it has as many keys as it can", func(t *testing.T) {
		for i := range 20 {
			path := fmt.Sprintf("%s/more%d", b.State, i)
			r := rekeyed(b, "--to", "keyfile:"+path)
			if r.Code == 0 {
				continue
			}
			if !strings.Contains(r.Err, "keys open the vault already") {
				t.Errorf("%+v", r)
			}
			absent(t, path)
			audited(t, b, map[string]string{"kind": "rekey.failed"})
			return
		}
		t.Error("it takes any number of keys")
	})
	t.Run("the service does not answer", func(t *testing.T) {
		if err := b.Daemon.Stop(); err != nil {
			t.Fatal(err)
		}
		if r := rekeyed(b, "--to", "keyfile:"+b.State+"/late"); r.Code != 69 || !strings.Contains(r.Err, "does not answer within") {
			t.Errorf("%+v", r)
		}
		absent(t, b.State+"/late")
		if err := b.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := b.WaitHealthy(); err != nil {
			t.Error(err)
		}
	})
}

// What comes to /v1/rekey from others, or otherwise than it should, changes
// nothing; and the connection goes on for the next request.
func TestRekeyRefused(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	before, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key := bytes.Repeat([]byte("0123"), 8)
	file := filepath.Join(b.Root, "key-in-a-file")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := func(text []byte) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() }) // only read
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	conn, err := b.Dial(ctx, testbed.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for _, c := range []struct {
		name, body string
		files      []syscall.Conn
		says       string
	}{
		{"no descriptor", `{"kind":"keyfile"}`, nil, "exactly one descriptor"},
		{"two", `{"kind":"keyfile"}`, []syscall.Conn{pipe(key), pipe(key)}, "exactly one descriptor"},
		{"a file", `{"kind":"keyfile"}`, []syscall.Conn{opened}, "by a pipe"},
		{"too short", `{"kind":"keyfile"}`, []syscall.Conn{pipe(key[1:])}, "31 octets of 32"},
		{"too long", `{"kind":"keyfile"}`, []syscall.Conn{pipe(append(key, 0))}, "does not end"},
		{"another key than it says", `{"kind":"keyfile","id":"0000000000000000"}`, []syscall.Conn{pipe(key)}, "the key in the pipe is"},
		{"no kind", `{}`, []syscall.Conn{pipe(key)}, "no kind of key"},
		{"a member too many", `{"kind":"keyfile","key":"x"}`, []syscall.Conn{pipe(key)}, "not a member"},
	} {
		req, err := http.NewRequest("POST", "http://batchwarden/v1/rekey", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := req.Write(localsock.WithFiles(conn, c.files...)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		resp, err := http.ReadResponse(answers, req)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var p wire.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Code != wire.RequestInvalid || !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	for _, as := range []testbed.Account{b.Accounts.LSAM, b.Accounts.Stranger, b.Accounts.Daemon} {
		conn, err := b.Dial(ctx, as)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req, err := http.NewRequest("POST", "http://batchwarden/v1/rekey", strings.NewReader(`{"kind":"keyfile"}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := req.Write(localsock.WithFiles(conn, pipe(key))); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil || resp.StatusCode != 403 {
			t.Errorf("as %s: %+v, %v", as.Name, resp, err)
		}
	}
	audited(t, b, map[string]string{"kind": "rekey", "verdict": "deny", "code": wire.CallerForbidden})
	after, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if after.LocalVault != before.LocalVault {
		t.Errorf("the local vault was %+v and is %+v", before.LocalVault, after.LocalVault)
	}
}
