package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/daemon/config"
	"batchwarden/installer/linux"
)

// checked writes a configuration and reads it as the services do.
func checked(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "batchwarden.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Check(path)
	return c, err
}

func TestConfigurationToBeginWith(t *testing.T) {
	_, err := checked(t, linux.Configuration)
	if err == nil || !strings.Contains(err.Error(), "vault.address") || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("got %v, want one fault: that there is no Vault server yet", err)
	}
	// What is commented out would be understood too.
	var all strings.Builder
	for line := range strings.Lines(linux.Configuration) {
		if text, comment := strings.CutPrefix(strings.TrimLeft(line, " "), "# "); comment && !strings.HasPrefix(line, "# /etc") && (strings.Contains(text, ": ") || strings.HasSuffix(text, ":\n")) {
			line = line[:len(line)-len(text)-2] + text
		}
		all.WriteString(line)
	}
	text := all.String()
	text = text[strings.Index(text, "version: 1"):]
	text = strings.Replace(text, `address: ""`, `address: "https://vault.example.com"`, 1)
	var kept strings.Builder
	for line := range strings.Lines(text) { // sentences with a colon in them are no settings
		if first, _, _ := strings.Cut(strings.TrimSpace(line), ":"); strings.Contains(first, " ") && !strings.HasPrefix(strings.TrimSpace(line), "- ") {
			continue
		}
		kept.WriteString(line)
	}
	c, err := checked(t, kept.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, kept.String())
	}
	if len(c.Realms) != 3 || len(c.Clients) != 1 || c.SystemdSocket == "" || c.Machine != "db01" {
		t.Errorf("not all that is commented out was tried: %+v", c)
	}
	if _, err := config.ParseLimits("limits.yaml", []byte(linux.Limits)); err != nil {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	for method, auth := range map[string]string{
		"approle":    "{role_id_file: /a/role, secret_id_file: /a/secret, secret_id_wrapped: true}",
		"cert":       "{method: cert, cert_file: /a/cert, key_file: /a/key, role: machines}",
		"jwt":        "{method: jwt, jwt_file: /a/jwt, role: machines, mount: k8s}",
		"token_file": "{method: token_file, token_file: /a/token}",
	} {
		path := filepath.Join(dir, method)
		text := "vault: {address: \"https://vault.example.com:8200\", ca_file: /a/ca, namespace: ops, auth: " + auth + "}\nmachine: web7\nkey: credential\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := readAnswers(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err = w.configuration(keySpec(w.Key))
		if err != nil {
			t.Fatal(err)
		}
		c, err := checked(t, text)
		if err != nil {
			t.Errorf("%s: %v\n%s", method, err, text)
			continue
		}
		if c.Machine != "web7" || c.LocalVault.Key != "credential" || c.Vault.Namespace != "ops" || c.Vault.Auth.Method != method || c.Vault.CAFile != "/etc/batchwarden/vault-ca.pem" {
			t.Errorf("%s: got %+v", method, c)
		}
		for _, copied := range w.copies() {
			if !strings.Contains(text, `"`+copied.to+`"`) {
				t.Errorf("%s: %s is copied to %s, which the configuration does not name", method, copied.from, copied.to)
			}
		}
	}
}

func TestQuestions(t *testing.T) {
	var said bytes.Buffer
	a := &app{in: strings.NewReader("https://v:8200\n\n\n/r/role_id\n/r/secret_id\n\n"), errs: &said}
	w, err := a.askAnswers()
	if err != nil || w.Vault.Address != "https://v:8200" || w.Vault.Auth.Method != "approle" || w.Vault.Auth.SecretIDFile != "/r/secret_id" || !w.Vault.Auth.SecretIDWrapped {
		t.Errorf("got %+v, %v after\n%s", w, err, said.String())
	}
	if n := strings.Count(said.String(), ": "); n < 6 {
		t.Errorf("%d questions: %s", n, said.String())
	}
	a.in = strings.NewReader("https://v:8200\n")
	if _, err := a.askAnswers(); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("got %v, want that it ended in the middle", err)
	}
}

func TestPlaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	f := newFile(path, []byte("one and two"), 0o644)
	m := manifest{path: {sumOf([]byte("older"))}}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want placeState
	}{
		{"one and two", 0o644, placeSame}, {"one and two", 0o600, placeOurs}, {"one a", 0o644, placeOurs}, {"", 0o644, placeOurs},
		{"older", 0o644, placeOurs}, {"another", 0o644, placeForeign}, {"one and two, and three", 0o644, placeForeign},
	} {
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if got, err := f.look(m); err != nil || got != c.want {
			t.Errorf("%q %o: got %v, %v, want %v", c.text, c.mode, got, err, c.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := f.look(m); err != nil || got != placeMissing {
		t.Errorf("got %v, %v, want missing", got, err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if got, err := f.look(m); err != nil || got != placeForeign {
		t.Errorf("a link: got %v, %v", got, err)
	}
}
