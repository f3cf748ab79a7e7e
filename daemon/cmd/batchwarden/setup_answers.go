package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"batchwarden/daemon/config"
	"batchwarden/daemon/strict"
	"batchwarden/installer/linux"
)

// answers are what the first set-up has to be told. Every file named is copied to where the services read it.
type answers struct {
	Version int          `json:"version"`
	Machine string       `json:"machine"`
	Key     string       `json:"key"` // as --key
	Vault   answersVault `json:"vault"`
}

type answersVault struct {
	Address    string      `json:"address"`
	CAFile     string      `json:"ca_file"`
	ServerName string      `json:"server_name"`
	Namespace  string      `json:"namespace"`
	Mount      string      `json:"mount"`
	Auth       answersAuth `json:"auth"`
}

type answersAuth struct {
	Method          string `json:"method"`
	Mount           string `json:"mount"`
	Role            string `json:"role"`
	RoleIDFile      string `json:"role_id_file"`
	SecretIDFile    string `json:"secret_id_file"`
	SecretIDWrapped bool   `json:"secret_id_wrapped"`
	CertFile        string `json:"cert_file"`
	KeyFile         string `json:"key_file"`
	JWTFile         string `json:"jwt_file"`
	TokenFile       string `json:"token_file"`
}

// answersHelp is in the long help of setup install.
const answersHelp = `  version: 1
  key: keyfile                       # or credential, tpm2
  machine: db01                      # only where it is not the short host name
  vault:
    address: https://vault.example.com:8200
    ca_file: /root/vault-ca.pem
    auth: {method: approle, role_id_file: /root/db01/role_id, secret_id_file: /root/db01/secret_id, secret_id_wrapped: true}`

const maxAnswers = 64 << 10

// readAnswers reads an answers file.
func readAnswers(path string) (*answers, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxAnswers+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxAnswers {
		return nil, fmt.Errorf("%s is longer than %d octets", path, maxAnswers)
	}
	doc, err := strict.Parse(path, text)
	if err != nil {
		return nil, err
	}
	w := answers{Version: 1}
	doc.Decode(&w)
	if w.Version != 1 {
		doc.Fault("version", "%d is not supported by this version, which reads version 1", w.Version)
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return &w, nil
}

// askAnswers asks the person at the terminal.
func (a *app) askAnswers() (*answers, error) {
	in := bufio.NewScanner(a.in)
	var failed error
	ask := func(question, usual string) string {
		if failed != nil {
			return ""
		}
		if usual != "" {
			question += " [" + usual + "]"
		}
		fmt.Fprintf(a.errs, "%s: ", question)
		if !in.Scan() {
			if failed = in.Err(); failed == nil {
				failed = fmt.Errorf("the questions were not answered; nothing was changed")
			}
			return ""
		}
		return cmp.Or(strings.TrimSpace(in.Text()), usual)
	}
	w := &answers{Version: 1}
	v := &w.Vault
	v.Address = ask("Address of the Vault server, such as https://vault.example.com:8200", "")
	v.CAFile = ask("File with its CA certificate (empty: the system's)", "")
	v.Auth.Method = ask("How this machine logs in: approle, cert, jwt or token_file", config.AuthAppRole)
	switch v.Auth.Method {
	case config.AuthAppRole:
		v.Auth.RoleIDFile = ask("File with the role_id (batchwarden admin machine add --out makes one)", "")
		v.Auth.SecretIDFile = ask("File with the secret_id", "")
		v.Auth.SecretIDWrapped = strings.HasPrefix(strings.ToLower(ask("Is the secret_id wrapped, as admin machine add issues it", "yes")), "y")
	case config.AuthCert:
		v.Auth.CertFile = ask("File with the client certificate", "")
		v.Auth.KeyFile = ask("File with its key", "")
	case config.AuthJWT:
		v.Auth.Role = ask("Role to log in to", "")
		v.Auth.JWTFile = ask("File with the JWT", "")
	case config.AuthTokenFile:
		v.Auth.TokenFile = ask("File with the token", "")
	}
	return w, failed
}

// secret is a file that the sync worker alone reads.
type secret struct {
	from string // where the answers have it
	to   string // where the configuration names it
	open bool   // no secret: everybody may read it
}

// copies are the files of the answers, for the directory of the configuration.
func (w *answers) copies() (all []secret) {
	v := &w.Vault
	for _, c := range []struct {
		from, name string
	}{
		{v.CAFile, "vault-ca.pem"}, {v.Auth.RoleIDFile, "role_id"}, {v.Auth.SecretIDFile, "secret_id"}, {v.Auth.CertFile, "vault-client.pem"},
		{v.Auth.KeyFile, "vault-client.key"}, {v.Auth.JWTFile, "vault.jwt"}, {v.Auth.TokenFile, "vault-token"},
	} {
		if c.from != "" {
			all = append(all, secret{c.from, filepath.Join(filepath.Dir(config.DefaultFile), c.name), c.name == "vault-ca.pem"})
		}
	}
	return all
}

// configuration is batchwarden.yaml with the answers in it.
func (w *answers) configuration(key string) (string, error) {
	at := map[string]string{}
	for _, c := range w.copies() {
		at[c.from] = c.to
	}
	var b strings.Builder
	line := func(indent, name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s: %q\n", indent, name, value)
		}
	}
	v := &w.Vault
	b.WriteString("vault:\n")
	fmt.Fprintf(&b, "  address: %q\n", v.Address)
	line("  ", "ca_file", at[v.CAFile])
	line("  ", "server_name", v.ServerName)
	line("  ", "namespace", v.Namespace)
	line("  ", "mount", v.Mount)
	b.WriteString("  auth:\n")
	line("    ", "method", cmp.Or(v.Auth.Method, config.AuthAppRole))
	line("    ", "mount", v.Auth.Mount)
	line("    ", "role", v.Auth.Role)
	line("    ", "role_id_file", at[v.Auth.RoleIDFile])
	line("    ", "secret_id_file", at[v.Auth.SecretIDFile])
	if v.Auth.SecretIDWrapped {
		b.WriteString("    secret_id_wrapped: true\n")
	}
	line("    ", "cert_file", at[v.Auth.CertFile])
	line("    ", "key_file", at[v.Auth.KeyFile])
	line("    ", "jwt_file", at[v.Auth.JWTFile])
	line("    ", "token_file", at[v.Auth.TokenFile])

	text := linux.Configuration
	before, rest, found := strings.Cut(text, "\nvault:\n")
	_, after, found2 := strings.Cut(rest, "\n\n")
	if !found || !found2 {
		return "", fmt.Errorf("the configuration that this program brings has no place for Vault: that is a fault of the program")
	}
	text = before + "\n" + b.String() + "\n" + after
	if w.Machine != "" {
		text = strings.Replace(text, "# machine: db01", fmt.Sprintf("machine: %q", w.Machine), 1)
	}
	return strings.Replace(text, `key: "keyfile:/var/lib/batchwarden/key"`, fmt.Sprintf("key: %q", key), 1), nil
}
