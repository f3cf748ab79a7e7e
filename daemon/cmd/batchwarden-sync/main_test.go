//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/remote/remotetest"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// worker is the program under test, built as it is installed.
var worker string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "batchwarden-sync-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	worker = filepath.Join(dir, "batchwarden-sync")
	cmd := exec.Command("go", "build", "-o", worker, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const text = "needs root; run: sudo make test" // only root's configuration is read
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal(text)
	}
	t.Skip(text)
}

const canary = "canary-" // begins every password of the contract suite, too

// process is a source that runs the worker, as the launcher and the daemon do.
type process struct {
	t    *testing.T
	conf string
}

func (p process) Sync(ctx context.Context, keys *errand.Keys, task *errand.Task, out remote.Out) (*errand.Report, error) {
	cmd := exec.CommandContext(ctx, worker, "--config", p.conf)
	cmd.Env = []string{}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var raw, stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, err = stdin.Write(slices.Concat(keys.Batch[:], keys.Token[:]))
	if err == nil {
		err = errand.Send(stdin, task)
	}
	var report *errand.Report
	if err == nil {
		report, err = answers(io.TeeReader(stdout, &raw), stdin, out)
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%w: %s", err, &stderr)
	}
	if stderr.Len() != 0 {
		p.t.Errorf("stderr: %s", &stderr)
	}
	if bytes.Contains(raw.Bytes(), []byte(canary)) {
		p.t.Error("a password goes through the pipe as it is")
	}
	return report, nil
}

// answers reads all that a worker says, to the end of its pipe, and answers its question.
func answers(stdout io.Reader, stdin io.WriteCloser, out remote.Out) (*errand.Report, error) {
	var report *errand.Report
	for r := errand.NewReader(stdout); ; {
		m, err := r.Next()
		switch {
		case err == io.EOF:
			return report, nil
		case err != nil:
		case m.Report != nil:
			report = m.Report
		case m.Token != nil:
			err = out.Token(*m.Token)
		case m.WantKnown:
			var known []errand.Known
			if known, err = out.Known(); err == nil {
				slices.SortFunc(known, func(a, b errand.Known) int { return a.ID.Compare(b.ID) })
				err = errors.Join(errand.SendKnown(stdin, slices.Values(known)), stdin.Close())
			}
		default:
			err = out.Put(*m.Put)
		}
		if err != nil {
			return nil, err
		}
	}
}

func TestContract(t *testing.T) {
	needRoot(t)
	remotetest.Run(t, func(t *testing.T, c remote.Config) remotetest.Source {
		return process{t, configure(t, t.TempDir(), c)}
	})
}

// configure writes the configuration of a machine that is set up as c says.
func configure(t *testing.T, dir string, c remote.Config) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmachine: %s\nplatforms: [%s]\ngroups: [%s]\nvault:\n", c.Machine, strings.Join(c.Platforms, ","), strings.Join(c.Groups, ","))
	line := func(indent int, name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%*s%s: %q\n", indent, "", name, value)
		}
	}
	line(2, "address", c.Address)
	line(2, "ca_file", c.CAFile)
	line(2, "server_name", c.ServerName)
	line(2, "namespace", c.Namespace)
	line(2, "mount", c.Mount)
	b.WriteString("  auth:\n")
	line(4, "method", c.Auth.Method)
	a := map[string][]string{
		remote.AppRole: {"role_id_file", c.Auth.RoleIDFile, "secret_id_file", c.Auth.SecretIDFile},
		remote.Cert:    {"cert_file", c.Auth.CertFile, "key_file", c.Auth.KeyFile},
		remote.JWT:     {"jwt_file", c.Auth.JWTFile}, remote.TokenFile: {"token_file", c.Auth.TokenFile},
	}[c.Auth.Method]
	for pair := range slices.Chunk(a, 2) {
		line(4, pair[0], pair[1])
	}
	line(4, "role", c.Auth.Role)
	if c.Auth.Method != remote.TokenFile {
		line(4, "mount", c.Auth.Mount)
	}
	if c.Auth.SecretIDWrapped {
		b.WriteString("    secret_id_wrapped: true\n")
	}
	if len(c.Sources) > 0 {
		fmt.Fprintf(&b, "sync:\n  sources: [%s]\n", strings.Join(c.Sources, ", "))
	}
	file := filepath.Join(dir, "batchwarden.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestWorkerIsConfined looks at a worker that waits for its keys: by then it has given up all it will.
func TestWorkerIsConfined(t *testing.T) {
	needRoot(t)
	ctx := t.Context()
	s, err := vaulttest.Start(ctx, vaulttest.Options{})
	must(t, err)
	defer s.Close()
	must(t, s.Init(ctx))
	role, secret, err := s.AddMachine(ctx, "db01", "unix")
	must(t, err)
	must(t, s.PutBatchUser(ctx, "machines/db01", "payroll", map[string]any{"username": "u", "password": canary + "1"}))

	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	c := remote.Config{Machine: "db01", Platforms: []string{"unix"}, Address: s.Address, Mount: vaulttest.Mount,
		CAFile: filepath.Join(dir, "ca.pem"),
		Auth:   remote.Auth{Method: remote.AppRole, RoleIDFile: filepath.Join(dir, "role_id"), SecretIDFile: filepath.Join(dir, "secret_id")}}
	pem, err := os.ReadFile(s.CAFile)
	must(t, err)
	const nobody = 65534
	for name, text := range map[string]string{c.CAFile: string(pem), c.Auth.RoleIDFile: role, c.Auth.SecretIDFile: secret} {
		must(t, os.WriteFile(name, []byte(text), 0o400))
		must(t, os.Chown(name, nobody, nobody))
	}

	cmd := exec.CommandContext(ctx, worker, "--config", configure(t, dir, c))
	as(cmd, nobody)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, []string{}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())

	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(read(t, proc+"status"), "NoNewPrivs:\t1") {
		if time.Now().After(deadline) {
			t.Fatal("the worker does not set no_new_privs")
		}
		time.Sleep(time.Millisecond)
	}
	if fi, err := os.Stat(proc + "environ"); err != nil || uid(fi) != 0 {
		t.Errorf("the worker is dumpable: its environ is not root's (%v)", err)
	}
	for line := range strings.Lines(read(t, proc+"limits")) {
		if strings.HasPrefix(line, "Max core file size") && strings.Join(strings.Fields(line)[4:6], " ") != "0 0" {
			t.Errorf("the worker may dump core: %s", line)
		}
	}

	keys := [2]errand.Keys{}
	keys[0].Batch[0] = 9
	_, err = stdin.Write(append(keys[0].Batch[:], keys[0].Token[:]...))
	must(t, err)
	must(t, errand.Send(stdin, &errand.Task{Generation: 3}))
	must(t, stdin.Close())
	must(t, cmd.Wait())
	for _, text := range []string{canary, secret, role} {
		if strings.Contains(stdout.String(), text) || strings.Contains(stderr.String(), text) {
			t.Error("a secret leaves the worker as it is")
		}
	}
	r := errand.NewReader(&stdout)
	m, err := r.Next()
	must(t, err)
	if m.Put == nil || m.Put.ID != (snapshot.ID{Scope: "machines/db01", Kind: snapshot.BatchUserKind, Name: "payroll"}) {
		t.Fatalf("got %+v first", m)
	}
	m, err = r.Next()
	must(t, err)
	if m.Report == nil || m.Report.Code != errand.OK || m.Report.Token == nil {
		t.Errorf("got %+v at the end", m.Report)
	}
}

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		in   string
		code int
	}{
		"an_argument_too_many": {[]string{"now"}, "", 64},
		"not_needed":           {nil, "", 0},
		"half_a_key":           {nil, "k", 70},
		"one_key":              {nil, strings.Repeat("k", 32), 70},
		"no_task":              {nil, strings.Repeat("k", 64), 70},
		"half_a_task":          {nil, strings.Repeat("k", 64) + "\x00\x00\x00\x09{", 70},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(worker, append([]string{"--config", "/nonexistent/batchwarden.yaml"}, c.args...)...)
			cmd.Stdin = strings.NewReader(c.in)
			var exit *exec.ExitError
			if err := cmd.Run(); c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &exit) || exit.ExitCode() != c.code) {
				t.Errorf("got %v, want exit code %d", err, c.code)
			}
		})
	}
	t.Run("no_configuration_is_a_report", func(t *testing.T) {
		p := process{t, "/nonexistent/batchwarden.yaml"}
		r, err := p.Sync(t.Context(), &errand.Keys{}, &errand.Task{Generation: 1}, remote.Out{})
		must(t, err)
		if r.Code != errand.Setup || !strings.Contains(r.Detail, "batchwarden.yaml") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("a_daemon_that_left", func(t *testing.T) {
		out, in, err := os.Pipe()
		must(t, err)
		must(t, out.Close())
		var task bytes.Buffer
		task.Write(make([]byte, 64))
		must(t, errand.Send(&task, &errand.Task{Generation: 1}))
		cmd := exec.Command(worker, "--config", "/nonexistent/batchwarden.yaml")
		cmd.Stdin, cmd.Stdout = io.Reader(&task), in
		if err := cmd.Run(); err == nil {
			t.Error("exit code 0 although nobody heard the report")
		}
		must(t, in.Close())
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	return string(b)
}
