package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/vaulttest"
)

// vault is a real server, and the operator's environment points at it.
type vault struct {
	*testing.T
	server *vaulttest.Server
}

func startVault(t *testing.T) *vault {
	t.Helper()
	s, err := vaulttest.Start(t.Context(), vaulttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"VAULT_NAMESPACE", "VAULT_TLS_SERVER_NAME", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_CACERT", s.CAFile)
	t.Setenv("VAULT_TOKEN", s.RootToken)
	t.Setenv("HOME", t.TempDir())
	return &vault{t, s}
}

// admin runs a command that must succeed and returns what it prints.
func (v *vault) admin(args ...string) string {
	v.Helper()
	return v.piped("", args...)
}

func (v *vault) piped(in string, args ...string) string {
	v.Helper()
	code, out, errs := command(v.T, in, append([]string{"admin"}, args...)...)
	if code != 0 || errs != "" {
		v.Fatalf("admin %q: got %d, %s%s", args, code, out, errs)
	}
	return out
}

// refused runs a command that must end with the code, and say so.
func (v *vault) refused(code int, want string, args ...string) {
	v.Helper()
	got, out, errs := command(v.T, "", append([]string{"admin"}, args...)...)
	if got != code || !strings.Contains(errs, want) {
		v.Errorf("admin %q: got %d, %s%s; want %d and …%s…", args, got, out, errs, code, want)
	}
}

// once runs a command dry, then for good, then again: the dry run says that something would be done and does
// nothing, the second run finds nothing to do.
func (v *vault) once(args ...string) string {
	v.Helper()
	state := v.state()
	if out := v.admin(append(args, "--dry-run")...); !strings.Contains(out, "would ") || !strings.Contains(out, "dry run") {
		v.Errorf("admin %q --dry-run: got %q, want what it would do", args, out)
	}
	if now := v.state(); now != state {
		v.Errorf("admin %q --dry-run changed\n%s\nto\n%s", args, state, now)
	}
	out := v.admin(args...)
	state = v.state()
	if again := v.admin(args...); !strings.Contains(again, "Nothing to do") {
		v.Errorf("admin %q a second time: got %q, want nothing to do", args, again)
	}
	if now := v.state(); now != state {
		v.Errorf("admin %q a second time changed\n%s\nto\n%s", args, state, now)
	}
	return out
}

// state is all that can be listed in Vault, with the versions of the documents.
func (v *vault) state() string {
	v.Helper()
	var b strings.Builder
	var walk func(path string)
	walk = func(path string) {
		got, err := v.server.Root().Logical().ListWithContext(v.Context(), path)
		if err != nil || got == nil {
			return // no mount yet
		}
		keys, _ := got.Data["keys"].([]any)
		for _, key := range keys {
			name, _ := key.(string)
			b.WriteString(path + "/" + name)
			if strings.HasSuffix(name, "/") {
				b.WriteString("\n")
				walk(path + "/" + strings.TrimSuffix(name, "/"))
				continue
			}
			if one, err := v.server.Root().Logical().ReadWithContext(v.Context(), path+"/"+name); err == nil && one != nil {
				text, _ := json.Marshal([]any{one.Data["current_version"], one.Data["metadata"], one.Data["policies"], one.Data["versions"]})
				b.Write(text)
			}
			b.WriteString("\n")
		}
	}
	for _, path := range []string{"batch/metadata", "identity/entity/name", "auth/approle/role", "sys/policies/acl", "auth/approle/role/db01/secret-id"} {
		walk(path)
	}
	return b.String()
}

const opconPolicy = `# YAML here, JSON in Vault
model: opcon
x_owner: operations
roles:
  payroll-ops: {batch_users: {unix: [users/other]}, machines: [DB01_LSAM]}
users:
  jdoe: {roles: [payroll-ops]}
  idle: {roles: []}
`

// TestAdminStory is a machine's life: from an empty server to its end, each step dry, for good, and again.
func TestAdminStory(t *testing.T) {
	v := startVault(t)
	t.Setenv("VAULT_TOKEN", "none")
	v.refused(77, "the capability", "init")
	if err := os.WriteFile(filepath.Join(os.Getenv("HOME"), ".vault-token"), []byte(v.server.RootToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_TOKEN", "") // from here on it is the file's
	v.once("init")

	v.refused(64, "is no name", "machine", "add", "../x")
	v.refused(78, "is no platform", "machine", "add", "db01", "--platform", "plan9")
	out := filepath.Join(t.TempDir(), "machines")
	v.admin("machine", "add", "db01", "--group", "pay", "--out", out, "--dry-run")
	if _, err := os.Stat(out); err == nil {
		t.Error("a dry run made the directory of --out")
	}
	said := v.admin("machine", "add", "db01", "--group", "pay", "--out", out)
	role, wrapped := read(t, filepath.Join(out, "db01", "role_id")), read(t, filepath.Join(out, "db01", "secret_id"))
	if strings.Contains(said, wrapped) || role == "" || wrapped == "" {
		t.Errorf("got %q, %q and %s, want both in files and the token nowhere else", role, wrapped, said)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "/role_id": 0o600, "/secret_id": 0o600} {
		if info, err := os.Stat(filepath.Join(out, "db01") + name); err != nil || info.Mode().Perm() != want {
			t.Errorf("db01%s: got %v %v, want mode %o", name, info, err, want)
		}
	}
	unwrapped, err := v.server.Root().Logical().UnwrapWithContext(t.Context(), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	secretID, _ := unwrapped.Data["secret_id"].(string)
	token, err := v.server.Login(t.Context(), role, secretID)
	if err != nil {
		t.Fatal(err)
	}
	if again := v.admin("machine", "add", "db01", "--group", "pay"); !strings.Contains(again, "Nothing to do") || !strings.Contains(again, "none issued") {
		t.Errorf("added again: got %s, want no second secret_id", again)
	}
	if got := v.admin("machine", "list"); !strings.Contains(got, "db01     unix       pay     in service") {
		t.Errorf("got %s, want db01 in its group", got)
	}

	v.refused(64, "say where", "batch-user", "put", "payroll", "--username", "payroll")
	v.refused(64, "only one of", "batch-user", "put", "payroll", "--group", "pay", "--machine", "db01")
	v.refused(1, "Repeat with --shared", "batch-user", "put", "payroll", "--platform", "unix", "--username", "payroll", "--generate")
	v.once("batch-user", "put", "payroll", "--group", "pay", "--username", "payroll", "--os-group", "users", "--name", "opcon=users/payroll", "--retrieve", "--generate")
	if got := v.admin("batch-user", "list"); !strings.Contains(got, "groups/pay  payroll  payroll  opcon=users/payroll  launch, retrieve  here      1") {
		t.Errorf("got %s, want payroll", got)
	}
	v.once("batch-user", "put", "payroll", "--group", "pay", "--max-stale", "24h", "--retrieve=false") // and the rest stays
	v.piped("s3cret\n", "password", "payroll", "--group", "pay", "--stdin")
	if got := v.piped("s3cret\r\n", "password", "payroll", "--group", "pay", "--stdin"); !strings.Contains(got, "Nothing to do") {
		t.Errorf("the same password again: got %s, want nothing to do", got)
	}
	var listed struct {
		BatchUsers []struct {
			Version  int
			Document map[string]any
		} `json:"batch_users"`
	}
	if err := json.Unmarshal([]byte(v.admin("batch-user", "list", "--group", "pay", "--json")), &listed); err != nil || len(listed.BatchUsers) != 1 ||
		listed.BatchUsers[0].Version != 3 || listed.BatchUsers[0].Document["max_stale"] != "24h" || listed.BatchUsers[0].Document["group"] != "users" || listed.BatchUsers[0].Document["password"] != nil {
		t.Errorf("got %+v %v, want version 3 with all that was put, and no password", listed, err)
	}

	file := write(t, "opcon.yaml", opconPolicy)
	v.refused(78, "wat: is not known", "policy", "put", "opcon", write(t, "bad.yaml", opconPolicy+"wat: 1\n"), "--platform", "unix", "--yes")
	v.refused(1, "repeat with --yes", "policy", "put", "opcon", file, "--platform", "unix")
	v.once("policy", "put", "opcon", file, "--platform", "unix", "--yes")
	if code, out, _ := command(t, "", "admin", "policy", "diff", "opcon", file, "--platform", "unix"); code != 0 || !strings.Contains(out, "0 lost, 0 gained") {
		t.Errorf("got %d %s, want no difference", code, out)
	}

	v.review(t, nil)
	grant := []string{"--realm", "opcon", "--batch-user", "payroll", "--role", "payroll-ops"}
	v.refused(64, "cannot be a grantee", "grant", "--realm", "opcon", "--batch-user", "payroll", "--user", "jdoe")
	v.refused(1, "grant --new makes it", "grant", "--realm", "opcon", "--batch-user", "payroll", "--role", "typo")
	v.refused(1, `no batch user "typo"`, "grant", "--realm", "opcon", "--batch-user", "typo", "--role", "payroll-ops")
	v.refused(1, `no scope has a policy of the realm "other"`, "grant", "--realm", "other", "--batch-user", "payroll", "--role", "payroll-ops")
	granted := v.once(append([]string{"grant"}, grant...)...)
	for _, want := range []string{`roles.payroll-ops.batch_users.unix: "users/payroll" is added`, "gained  jdoe", "0 lost"} {
		if !strings.Contains(granted, want) {
			t.Errorf("got %s, want …%s…", granted, want)
		}
	}
	if got := v.admin("policy", "get", "opcon", "--platform", "unix"); !strings.Contains(got, `"x_owner":"operations"`) || !strings.Contains(got, `["users/other","users/payroll"]`) {
		t.Errorf("got %s, want the grant and the rest as it was", got)
	}
	v.review(t, []string{"db01 payroll opcon users/payroll jdoe ", "db01 payroll opcon users/payroll  Role_ocadm", "db01 payroll opcon users/payroll  payroll-ops"}, "--agent", "opcon=DB01_LSAM")
	v.review(t, []string{"db01 payroll opcon users/payroll  Role_ocadm"}, "--agent", "opcon={machine}_OTHER")
	v.once(append([]string{"revoke"}, grant...)...)
	v.review(t, nil, "--agent", "opcon=DB01_LSAM")
	v.refused(1, "can still use", "revoke", "--realm", "opcon", "--batch-user", "payroll", "--role", "Role_ocadm")

	v.once("machine", "remove", "db01")
	if got := v.admin("machine", "list"); !strings.Contains(got, "being removed") {
		t.Errorf("got %s, want that it is being removed", got)
	}
	if status, err := v.server.ReadAs(t.Context(), token, "machines/db01/index"); err != nil || status != 200 {
		t.Errorf("the machine cannot read its mark: %d %v", status, err)
	}
	v.once("machine", "remove", "db01", "--finish")
	if status, _ := v.server.ReadAs(t.Context(), token, "groups/pay/batch_users/payroll"); status != 403 {
		t.Errorf("the machine still reads the group's batch user: %d", status)
	}
	v.once("batch-user", "delete", "payroll", "--group", "pay")
	v.once("group", "remove", "pay")
}

// review holds a review of db01 as CSV against what is wanted, and that the other formats say as much.
func (v *vault) review(t *testing.T, want []string, args ...string) {
	t.Helper()
	args = append([]string{"admin", "review", "--machine", "db01"}, args...)
	code, out, _ := command(t, "", append(args, "--format", "csv")...)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 {
		t.Fatalf("%q: got %d, %s, %v", args, code, out, err)
	}
	var got []string
	for i, row := range rows {
		if i > 0 {
			got = append(got, strings.Join([]string{row[0], row[1], row[4], row[5], row[6], row[7]}, " "))
		}
	}
	// Role_ocadm is in every document, and can use everything.
	ocadm := "db01 payroll opcon users/payroll  Role_ocadm"
	if !slices.Contains(want, ocadm) {
		want = append(slices.Clone(want), ocadm)
	}
	if slices.Sort(got); !slices.Equal(got, sorted(want)) {
		t.Errorf("%q: got %q, want %q", args, got, want)
	}
	var asJSON struct {
		Uses    []usable
		Meaning map[string]string `json:"can_use_means"`
	}
	_, out, _ = command(t, "", append(args, "--json", "--why")...)
	if err := json.Unmarshal([]byte(out), &asJSON); err != nil || len(asJSON.Uses) != len(want) || asJSON.Meaning["opcon"] == "" || asJSON.Uses[0].By == nil {
		t.Errorf("%q: got %s, %v; want %d uses", args, out, err, len(want))
	}
	code, out, errs := command(t, "", args...)
	if code != 0 || errs != "" || strings.Count(out, "\ndb01 ") != len(want) || !strings.Contains(out, "opcon: can use means launch") {
		t.Errorf("%q: got %d, %s%s; want %d lines", args, code, out, errs, len(want))
	}
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
