package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"batchwarden/installer/testbed"
	"batchwarden/vault/vaulttest"
)

// notShown is what needs root, and why.
var notShown = []string{
	"jobs as another account: only root can make accounts, and only the launcher, as root, can become them",
	"the service: daemon and sync worker are users of their own, started by root, and read only files that are root's",
	"with it offline work, rotation, audit and the search of memory: they are about those processes",
}

// unprivileged shows what can be shown without root: the real server, what
// this machine may read there and what not, and decisions by the policy that
// lies there.
func unprivileged(ctx context.Context) (err error) {
	fmt.Printf("%s\n  - %s\n%s\n", bold("Without root this cannot be shown:"), strings.Join(notShown, "\n  - "),
		"For all of it run: sudo make demo. The rest follows.")
	dir, err := os.MkdirTemp("", "batchwarden-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	u := &rest{show: newShow(ctx, nil, os.Stdout), dir: dir}
	defer func() {
		if u.server != nil {
			err = errors.Join(u.server.Close(), err)
		}
	}()
	return u.steps(u.serverUp, u.ownDocumentsOnly, u.decides)
}

// rest is what is shown without root.
type rest struct {
	*show
	dir    string
	server *vaulttest.Server
	token  string // of the machine
}

const otherMachine = "db02"

func (u *rest) serverUp() (err error) {
	u.say("A real Vault-compatible server over TLS, with two machines, a batch user of each and a policy.")
	if err := os.Mkdir(filepath.Join(u.dir, "vault"), 0o700); err != nil {
		return err
	}
	if u.server, err = vaulttest.Start(u.ctx, vaulttest.Options{Dir: filepath.Join(u.dir, "vault")}); err != nil {
		return err
	}
	u.command(testbed.Root, "build/tools/devserver", "--listen", strings.TrimPrefix(u.server.Address, "https://"), "--dir", u.server.Dir)
	issued := filepath.Join(u.dir, "issued")
	policy := filepath.Join(u.dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(policyFile), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init"},
		{"machine", "add", testbed.Machine, "--out", issued},
		{"batch-user", "put", "payroll", "--machine", testbed.Machine, "--username", "payroll", "--name", testbed.Realm + "=users/payroll", "--kind", "none"},
		{"batch-user", "put", "payroll", "--machine", otherMachine, "--username", "payroll", "--name", testbed.Realm + "=users/payroll", "--kind", "none"},
		{"policy", "put", testbed.Realm, policy, "--machine", testbed.Machine, "--yes"},
		{"grant", "--realm", testbed.Realm, "--batch-user", "payroll", "--role", "payroll-ops"},
		{"review", "--agent", testbed.Realm + "=" + testbed.Agent},
	} {
		if err := u.admin(args...); err != nil {
			return err
		}
	}
	role, err := os.ReadFile(filepath.Join(issued, testbed.Machine, "role_id"))
	if err != nil {
		return err
	}
	wrapped, err := os.ReadFile(filepath.Join(issued, testbed.Machine, "secret_id"))
	if err != nil {
		return err
	}
	got, err := u.server.Unwrap(u.ctx, strings.TrimSpace(string(wrapped)))
	if err != nil {
		return err
	}
	u.token, err = u.server.Login(u.ctx, strings.TrimSpace(string(role)), fmt.Sprint(got["secret_id"]))
	return err
}

// admin runs "batchwarden admin ARGS…" and shows it with what it says.
func (u *rest) admin(args ...string) error {
	top, err := testbed.Top()
	if err != nil {
		return err
	}
	u.command(testbed.Root, append([]string{"batchwarden", "admin"}, args...)...)
	cmd := exec.CommandContext(u.ctx, filepath.Join(top, "build", "bin", "batchwarden"), append([]string{"admin"}, args...)...)
	cmd.Env = []string{"VAULT_ADDR=" + u.server.Address, "VAULT_CACERT=" + u.server.CAFile, "VAULT_TOKEN=" + u.server.RootToken}
	text, err := cmd.CombinedOutput()
	u.indent(string(text))
	return err
}

func (u *rest) ownDocumentsOnly() error {
	u.say("This machine's token reads its own documents, and is refused those of another machine.")
	for _, c := range []struct {
		scope string
		want  int
	}{{testbed.Scope, 200}, {"machines/" + otherMachine, 403}} {
		path := c.scope + "/batch_users/payroll"
		u.command(testbed.Root, "curl", "--cacert", u.server.CAFile, "-H", "X-Vault-Token: …", u.server.Address+"/v1/batch/data/"+path)
		got, err := u.server.ReadAs(u.ctx, u.token, path)
		if err != nil {
			return err
		}
		u.note("status %d", got)
		if got != c.want {
			return fmt.Errorf("%s: status %d, want %d", path, got, c.want)
		}
	}
	return nil
}

func (u *rest) decides() error {
	u.say("The policy as it lies in Vault decides: granted for %s, denied for %s, with the reason.", testbed.User, testbed.Nobody)
	_, body, err := u.server.As(u.ctx, u.token, "GET", "batch/data/"+testbed.Scope+"/policies/"+testbed.Realm)
	if err != nil {
		return err
	}
	var answer struct {
		Data struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	file := filepath.Join(u.dir, "policy.json")
	if err := os.WriteFile(file, answer.Data.Data, 0o600); err != nil {
		return err
	}
	top, err := testbed.Top()
	if err != nil {
		return err
	}
	for _, c := range []struct{ user, want string }{{testbed.User, `"allowed":true`}, {testbed.Nobody, `"code":"policy.denied"`}} {
		request := fmt.Sprintf(`{"subject":{"user":%q},"action":"launch","object":{"platform":"unix","batch_user":"users/payroll","machine":%q}}`, c.user, testbed.Agent)
		u.note("%s", dim("$ echo "+quoted([]string{request})+" | batchwarden policy eval --policy "+file))
		cmd := exec.Command(filepath.Join(top, "build", "bin", "batchwarden"), "policy", "eval", "--policy", file)
		cmd.Stdin = strings.NewReader(request + "\n")
		text, err := cmd.CombinedOutput()
		u.indent(string(text))
		if err != nil || !bytes.Contains(text, []byte(c.want)) {
			return fmt.Errorf("%s: %v, want %s", c.user, err, c.want)
		}
	}
	return nil
}
