package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/strict"
)

// least is the shortest main file that is accepted.
const least = `
vault:
  address: https://vault.example.com:8200
  auth: {role_id_file: /etc/batchwarden/role_id, secret_id_file: /etc/batchwarden/secret_id}
realms: {opcon: {model: opcon, agent: DB01}}
`

// host writes a main file and clients.d (name, text, name, text …) and returns the main file's path.
func host(t *testing.T, main string, clients ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(clients); i += 2 {
		write(filepath.Join(dir, "clients.d", clients[i]), clients[i+1])
	}
	file := filepath.Join(dir, "batchwarden.yaml")
	write(file, main)
	return file
}

// only returns the one fault that err has, as "place: text".
func only(t *testing.T, err error) string {
	t.Helper()
	faults, ok := err.(strict.Faults)
	if !ok || len(faults) != 1 {
		t.Fatalf("got %v, want exactly one fault", err)
	}
	return faults[0].Place + ": " + faults[0].Text
}

func TestDefaults(t *testing.T) {
	got, _, err := Check(host(t, least))
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	short, _, _ := strings.Cut(hostname, ".")
	want := &Config{
		Machine:   short,
		Platforms: []string{"unix"},
		StateDir:  "/var/lib/batchwarden",
		Socket:    "/run/batchwarden/batchwarden.sock",
		Launcher: Launcher{
			Socket:     "/run/batchwarden-launcher/launcher.sock",
			StateDir:   "/var/lib/batchwarden-launcher",
			CgroupRoot: "auto",
		},
		Users: Users{Daemon: "batchwarden", Sync: "batchwarden-sync"},
		Vault: Vault{
			Address: "https://vault.example.com:8200",
			Mount:   "batch",
			Auth: Auth{
				Method: "approle", Mount: "approle",
				RoleIDFile: "/etc/batchwarden/role_id", SecretIDFile: "/etc/batchwarden/secret_id",
			},
		},
		Sync: Sync{
			Interval: 30 * time.Second, Sweep: 15 * time.Minute,
			MaxStale: 72 * time.Hour, PolicyMaxStale: 24 * time.Hour,
		},
		LocalVault: LocalVault{Key: "keyfile:/var/lib/batchwarden/key"},
		Realms:     map[string]Realm{"opcon": {Model: "opcon", Agent: "DB01"}},
		Operators:  Operators{Users: []string{"root"}, Groups: []string{"batchwarden-admin"}},
		Jobs:       Jobs{Keep: 168 * time.Hour, CaptureMax: 64 << 20, Grace: 30 * time.Second, MaxRunning: 2000},
		Audit: Audit{
			File: "/var/lib/batchwarden/audit.jsonl",
			Sync: 100 * time.Millisecond, Rotate: 256 << 20, Keep: 30,
		},
		Log:   Log{Level: "info", Format: "auto"},
		Files: got.Files,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// TestFull holds testdata/full.yaml, which people copy from, against the defaults that it claims to show.
func TestFull(t *testing.T) {
	full, warnings, err := Check("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && len(warnings) > 0 {
		t.Log("warnings:", warnings) // who owns a checkout is not ours to say
	}
	bare, _, err := Check(host(t, least))
	if err != nil {
		t.Fatal(err)
	}
	want := Client{
		Name: "opcon-lsam", Match: Match{User: "opcon"}, Realms: []string{"opcon"}, May: []string{"authorize", "launch"},
		Subjects:   Subjects{Users: []string{"*"}, Roles: []string{}, Privileged: []string{}},
		BatchUsers: []string{"payroll*"}, File: "testdata/full.yaml", Line: 29,
	}
	if len(full.Clients) != 1 || !reflect.DeepEqual(full.Clients[0], want) {
		t.Errorf("got clients %+v, want %+v", full.Clients, want)
	}
	full.Clients, full.Files, full.Machine, full.Realms = bare.Clients, bare.Files, bare.Machine, bare.Realms
	full.Vault.CAFile = ""
	full.Groups, full.Sync.Sources = nil, nil
	if !reflect.DeepEqual(full, bare) {
		t.Errorf("got\n%+v\nwant the defaults\n%+v", full, bare)
	}
}

func TestBelowStateDir(t *testing.T) {
	c, _, err := Check(host(t, "state_dir: /srv/bw\n"+least))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"tpm2": "tpm2:/srv/bw/key.tpm2", "tpm2:/k": "tpm2:/k", "credential": "credential"} {
		c, _, err := Check(host(t, "state_dir: /srv/bw\nlocal_vault: {key: '"+key+"'}\n"+least))
		if err != nil || c.LocalVault.Key != want {
			t.Errorf("%s: got %+v, %v, want %s", key, c, err, want)
		}
	}
	if c.LocalVault.Key != "keyfile:/srv/bw/key" || c.Audit.File != "/srv/bw/audit.jsonl" {
		t.Errorf("got key %q and audit file %q, want both below /srv/bw", c.LocalVault.Key, c.Audit.File)
	}
}

func TestValues(t *testing.T) {
	c, warnings, err := Check(host(t, `
machine: db01
groups: [prod, eu]
vault:
  address: http://[::1]:8200/
  server_name: vault.internal
  namespace: ops/batch
  mount: secrets/batch
  auth: {method: token_file, token_file: /run/token}
realms: {A: {model: opcon, agent: X, agent_services: [FIN]}}
operators: {users: [], groups: []}
audit: {sync: always, argv: true}
clients:
  - {name: own, match: {user: a}, realms: [A], may: [launch], rate: 30/m}
  - {name: nobody, match: {group: b}, subjects: {users: []}}
  - {name: never, match: {user: a, exe: /opt/lsam}}
`))
	if err != nil {
		t.Fatal(err)
	}
	wantVault := Vault{
		Address: "http://[::1]:8200", ServerName: "vault.internal", Namespace: "ops/batch", Mount: "secrets/batch",
		Auth: Auth{Method: AuthTokenFile, TokenFile: "/run/token"},
	}
	if c.Vault != wantVault {
		t.Errorf("got vault %+v, want %+v", c.Vault, wantVault)
	}
	if len(c.Operators.Users)+len(c.Operators.Groups) != 0 {
		t.Errorf("got operators %+v, want none: an empty list is not the default", c.Operators)
	}
	if !c.Audit.Always() || !c.Audit.Argv {
		t.Errorf("got audit %+v, want sync always and argv", c.Audit)
	}
	own, nobody := c.Clients[0], c.Clients[1]
	if !own.Subjects.OwnName || nobody.Subjects.OwnName {
		t.Error("own name: got", own.Subjects.OwnName, "without users and", nobody.Subjects.OwnName, "with an empty list, want true and false")
	}
	if own.Rate.PerSecond() != 0.5 || !nobody.Rate.Unlimited() || nobody.Rate.PerSecond() != 0 {
		t.Errorf("got rates %v and %v, want 30/m and none", own.Rate, nobody.Rate)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], ": client never: it never matches: client own of ") {
		t.Errorf("got warnings %q, want one of the entry that can never match", c.Warnings)
	}
	if os.Geteuid() == 0 && !reflect.DeepEqual(warnings, c.Warnings) {
		t.Errorf("Check: got warnings %q, want %q", warnings, c.Warnings)
	}
	if !own.Allows(MayLaunch) || own.Allows(MayRetrieve) || !own.InRealm("A") || own.InRealm("B") {
		t.Errorf("got %+v, want launch in A and nothing else", own)
	}
}

func TestClientFiles(t *testing.T) {
	entry := func(name string) string { return "clients: [{name: " + name + ", match: {user: u}}]\n" }
	file := host(t, least+entry("first"),
		"20-b.yaml", entry("third"),
		"10-a.yaml", "version: 1\n"+entry("second"),
		"100.yaml", entry("before-10-a"), // by name, not by number
		".30-c.yaml.swp", "half an edit", "README", "not ours")
	c, _, err := Check(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, client := range c.Clients {
		names = append(names, client.Name+" "+filepath.Base(client.File))
	}
	got, want := strings.Join(names, ", "), "first batchwarden.yaml, second 10-a.yaml, before-10-a 100.yaml, third 20-b.yaml"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(c.Files) != 4 {
		t.Errorf("got files %q, want four", c.Files)
	}
}

func TestClientFileFaults(t *testing.T) {
	for _, c := range []struct{ name, file, text, want string }{
		{"another name's end", "a.yml", "", ": would not be read: a name here ends in .yaml; rename it"},
		{"more than clients", "a.yaml", "clients: []\nmachine: x\n", "machine: is not known; known here: version, clients"},
		{"version", "a.yaml", "version: 3\n", "version: 3 is not supported by this version, which reads version 1"},
		{"unreadable", "a.yaml", "clients: [\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := host(t, least, c.file, c.text)
			_, _, err := Check(file)
			got := only(t, err)
			if c.want != "" && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if want := filepath.Join(filepath.Dir(file), "clients.d", c.file); err.(strict.Faults)[0].File != want {
				t.Errorf("got a fault of %s, want %s", err.(strict.Faults)[0].File, want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "batchwarden.yaml")
	for name, read := range map[string]func(string) error{
		"Load":       func(f string) error { _, err := Load(f); return err },
		"Check":      func(f string) error { _, _, err := Check(f); return err },
		"LoadLimits": func(f string) error { _, err := LoadLimits(f); return err },
	} {
		if err := read(file); err == nil || err.Error() != file+": does not exist" {
			t.Errorf("%s: got %v, want that the file does not exist", name, err)
		}
	}
}

func TestTooLong(t *testing.T) {
	_, _, err := Check(host(t, strings.Repeat("#", maxFile+1)))
	if err == nil || !strings.Contains(err.Error(), "longer than "+strconv.Itoa(maxFile)) {
		t.Errorf("got %v, want that it is too long", err)
	}
}

// TestAuthMethods reads each way to log in with everything it can be told.
func TestAuthMethods(t *testing.T) {
	for _, c := range []struct {
		text string
		want Auth
	}{
		{"role_id_file: /r, secret_id_file: /s, secret_id_wrapped: true",
			Auth{Method: AuthAppRole, Mount: "approle", RoleIDFile: "/r", SecretIDFile: "/s", SecretIDWrapped: true}},
		{"mount: pay/approle, role: db01, role_id_file: /r, secret_id_file: /s, secret_id_wrapped: true",
			Auth{Method: AuthAppRole, Mount: "pay/approle", Role: "db01", RoleIDFile: "/r", SecretIDFile: "/s", SecretIDWrapped: true}},
		{"method: cert, cert_file: /c, key_file: /k", Auth{Method: AuthCert, Mount: "cert", CertFile: "/c", KeyFile: "/k"}},
		{"method: cert, mount: pki, role: machines, cert_file: /c, key_file: /k",
			Auth{Method: AuthCert, Mount: "pki", Role: "machines", CertFile: "/c", KeyFile: "/k"}},
		{"method: jwt, jwt_file: /j", Auth{Method: AuthJWT, Mount: "jwt", JWTFile: "/j"}},
		{"method: jwt, role: machines, jwt_file: /j", Auth{Method: AuthJWT, Mount: "jwt", Role: "machines", JWTFile: "/j"}},
		{"method: token_file, token_file: /t", Auth{Method: AuthTokenFile, TokenFile: "/t"}},
	} {
		got, _, err := Check(host(t, "vault: {address: https://v, auth: {"+c.text+"}}\n"))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got.Vault.Auth != c.want {
			t.Errorf("%s: got %+v, want %+v", c.text, got.Vault.Auth, c.want)
		}
	}
}

func TestTextfile(t *testing.T) {
	const main = "vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s}}\nmetrics: {textfile: FILE}\n"
	if c, _, err := Check(host(t, strings.ReplaceAll(main, "FILE", "/c/batchwarden.prom"))); err != nil || c.Metrics.Textfile != "/c/batchwarden.prom" {
		t.Errorf("%+v, %v", c, err)
	}
	for file, why := range map[string]string{"/c/batchwarden.txt": "end in .prom", "batchwarden.prom": "absolute"} {
		_, _, err := Check(host(t, strings.ReplaceAll(main, "FILE", file)))
		if got := only(t, err); !strings.HasPrefix(got, "metrics.textfile: ") || !strings.Contains(got, why) {
			t.Errorf("%s: %s", file, got)
		}
	}
}

// TestUnbuilt writes each setting of the table into a file and wants exactly its refusal.
func TestUnbuilt(t *testing.T) {
	texts := map[string]string{
		"local_vault.key":            "local_vault: {key: VALUE}",
		"realms.*.model":             "realms: {r: {model: VALUE, agent: A}}",
		"clients[].subject_required": "clients: [{name: c, match: {user: u}, subject_required: VALUE}]",
	}
	for _, u := range unbuilt {
		t.Run(u.setting+" "+u.value, func(t *testing.T) {
			text, ok := texts[u.setting]
			if !ok {
				t.Fatal("the test does not know how to write this setting")
			}
			main := strings.ReplaceAll(text, "VALUE", u.value) + "\n"
			if !strings.HasPrefix(main, "vault:") {
				main += "vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s}}\n"
			}
			_, _, err := Check(host(t, main))
			got := only(t, err)
			place := strings.NewReplacer("[]", "[0]", "*", "r").Replace(u.setting)
			if !strings.HasPrefix(got, place+": ") || !strings.Contains(got, "not supported by this version; "+u.instead) {
				t.Errorf("got %s, want that %s is not supported by this version", got, place)
			}
		})
	}
}
