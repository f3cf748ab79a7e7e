package vaulttest_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/vaulttest"
)

// The test binary runs itself again as a process that starts a server and is killed.
const victimEnv = "VAULTTEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, opt vaulttest.Options) *vaulttest.Server {
	t.Helper()
	s, err := vaulttest.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, s.Init(t.Context()))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMachineReadsItsOwnAndNothingElse(t *testing.T) {
	ctx := t.Context()
	s := start(t, vaulttest.Options{})
	must(t, s.Init(ctx)) // again, and nothing is lost
	roleA, secretA, err := s.AddMachine(ctx, "a", "unix", "pay")
	must(t, err)
	_, _, err = s.AddMachine(ctx, "b", "windows")
	must(t, err)
	doc := map[string]any{"username": "u", "password": "p"}
	for _, scope := range []string{"machines/a", "machines/b", "machines/ab", "groups/pay", "groups/other", "platforms/unix", "platforms/windows"} {
		must(t, s.PutBatchUser(ctx, scope, "u", doc))
	}
	token, err := s.Login(ctx, roleA, secretA)
	must(t, err)
	for scope, want := range map[string]int{
		"machines/a": 200, "groups/pay": 200, "platforms/unix": 200,
		"machines/b": 403, "machines/ab": 403, "groups/other": 403, "platforms/windows": 403,
	} {
		got, err := s.ReadAs(ctx, token, scope+"/batch_users/u")
		must(t, err)
		if got != want {
			t.Errorf("machine a reads %s: got %d, want %d", scope, got, want)
		}
		got, _, err = s.As(ctx, token, "LIST", "batch/metadata/"+scope+"/batch_users")
		must(t, err)
		if got != want {
			t.Errorf("machine a lists %s: got %d, want %d", scope, got, want)
		}
	}
	for _, path := range []string{"batch/data/machines/a/batch_users/u", "batch/metadata/machines/a/batch_users/u"} {
		for _, method := range []string{http.MethodPut, http.MethodDelete} {
			if got, _, err := s.As(ctx, token, method, path); err != nil || got != 403 {
				t.Errorf("machine a: %s %s: got %d, %v; want 403", method, path, got, err)
			}
		}
	}
	must(t, s.SetRules(ctx, "a", vaulttest.Rule{Path: "batch/data/machines/a/batch_users/u", Capabilities: []string{"deny"}}))
	if got, err := s.ReadAs(ctx, token, "machines/a/batch_users/u"); err != nil || got != 403 {
		t.Errorf("after a denying rule: got %d, %v; want 403 for the token that exists", got, err)
	}
}

func TestServerComesBackAsItWas(t *testing.T) {
	ctx := t.Context()
	s := start(t, vaulttest.Options{})
	role, secret, err := s.AddMachine(ctx, "a", "unix")
	must(t, err)
	must(t, s.PutBatchUser(ctx, "machines/a", "u", map[string]any{"username": "u"}))
	token, err := s.Login(ctx, role, secret)
	must(t, err)
	address := s.Address
	must(t, s.Stop())
	must(t, s.Stop())
	if _, err := s.ReadAs(ctx, token, "machines/a/batch_users/u"); err == nil {
		t.Error("a stopped server answers")
	}
	must(t, s.Restart(ctx))
	if s.Address != address {
		t.Errorf("address: got %s, want %s as before", s.Address, address)
	}
	if got, err := s.ReadAs(ctx, token, "machines/a/batch_users/u"); err != nil || got != 200 {
		t.Errorf("after a restart: got %d, %v", got, err)
	}
	must(t, s.Seal(ctx))
	if got, err := s.ReadAs(ctx, token, "machines/a/batch_users/u"); err != nil || got != 503 {
		t.Errorf("sealed: got %d, %v; want 503", got, err)
	}
	must(t, s.Unseal(ctx))
	if got, err := s.ReadAs(ctx, token, "machines/a/batch_users/u"); err != nil || got != 200 {
		t.Errorf("unsealed: got %d, %v", got, err)
	}
	lines, err := s.Requests()
	must(t, err)
	if n := strings.Count(strings.Join(lines, "\n"), "GET /v1/batch/data/machines/a/batch_users/u"); n != 3 {
		t.Errorf("%d requests for the document were counted, want 3", n)
	}
}

func TestServerRefusesOverAMebibyte(t *testing.T) {
	ctx := t.Context()
	s := start(t, vaulttest.Options{})
	must(t, s.PutPolicy(ctx, "machines/a", "fits", map[string]any{"model": "opcon", "x_": strings.Repeat("a", 1000<<10)}))
	err := s.PutPolicy(ctx, "machines/a", "over", map[string]any{"model": "opcon", "x_": strings.Repeat("a", 1<<20)})
	if err == nil || !strings.Contains(err.Error(), "put failed due to value being too large") {
		t.Errorf("got %v, want raft's refusal", err)
	}
}

// TestServerEndsWithItsParent kills the process that started a server and sees the server go.
func TestServerEndsWithItsParent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var address string
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatal(err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it says that it was killed
	s, err := vaulttest.Start(t.Context(), vaulttest.Options{})
	must(t, err)
	defer s.Close()
	s.Address, s.CAFile = address, filepath.Join(dir, "ca.pem")
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, _, err := s.As(t.Context(), "", http.MethodGet, "sys/health"); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server outlives its parent")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func victim(dir string) {
	s, err := vaulttest.Start(context.Background(), vaulttest.Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.Address)
	select {}
}
