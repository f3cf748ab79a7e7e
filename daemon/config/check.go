package config

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/daemon/strict"
)

// keyfile begins the spec of a key that lies in a file, and tpm2 is the one of a key that the TPM seals into a file.
const (
	keyfile = "keyfile:"
	tpm2    = "tpm2"
)

// maxName bounds machines, groups, realms, clients and what else becomes a path in Vault.
const maxName = 61

// maxSocket is what fits into a sockaddr_un with its closing zero.
const maxSocket = 107

// checker adds what is wrong with one document's content to that document.
type checker struct {
	doc    *strict.Document
	faulty map[string]bool // places that Decode could not read: nothing more is said about them
}

// decoded reads the document into v and returns the checker for its content.
func decoded(doc *strict.Document, v any) *checker {
	doc.Decode(v)
	c := &checker{doc: doc, faulty: map[string]bool{}}
	if faults, ok := doc.Err().(strict.Faults); ok {
		for _, f := range faults {
			c.faulty[f.Place] = true
		}
	}
	return c
}

// fault adds one unless the place, or what it lies in, could not be read at all: that was said already.
func (c *checker) fault(place, format string, args ...any) {
	for p := place; p != ""; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
		if c.faulty[p] {
			return
		}
	}
	c.doc.Fault(place, format, args...)
}

func (c *checker) version(v int) {
	if v != 1 {
		c.fault("version", "%d is not supported by this version, which reads version 1", v)
	}
}

// main checks batchwarden.yaml but for its clients.
func (c *checker) main(m *mainFile) {
	c.version(m.Version)
	c.name("machine", m.Machine)
	c.oneOf("platforms", m.Platforms, "unix", "windows", "zos")
	if len(m.Platforms) == 0 {
		c.fault("platforms", "is empty; name at least one of unix, windows, zos")
	}
	c.names("groups", m.Groups)
	c.path("state_dir", m.StateDir)
	c.socket("socket", m.Socket)
	if m.SystemdSocket != "" {
		c.socket("systemd_socket", m.SystemdSocket)
	}

	c.socket("launcher.socket", m.Launcher.Socket)
	c.path("launcher.state_dir", m.Launcher.StateDir)
	if m.Launcher.CgroupRoot != "auto" {
		c.path("launcher.cgroup_root", m.Launcher.CgroupRoot)
	}
	if m.Launcher.Socket == m.Socket {
		c.fault("launcher.socket", "is the same as socket; the launcher's is private")
	}
	if m.SystemdSocket != "" && (m.SystemdSocket == m.Socket || m.SystemdSocket == m.Launcher.Socket) {
		c.fault("systemd_socket", "is another socket's path; systemd's is its own")
	}
	if filepath.Clean(m.Launcher.StateDir) == filepath.Clean(m.StateDir) {
		c.fault("launcher.state_dir", "is the same as state_dir; the launcher's belongs to root alone")
	}
	c.users(&m.Users)
	c.vault(&m.Vault)

	c.positive("sync.interval", m.Sync.Interval)
	c.positive("sync.sweep", m.Sync.Sweep)
	c.positive("sync.max_stale", m.Sync.MaxStale)
	c.positive("sync.policy_max_stale", m.Sync.PolicyMaxStale)
	c.sources(m.Sync.Sources, m.Vault.Mount)
	if m.LocalVault.Key != "" {
		c.key(m.LocalVault.Key)
	}

	for _, realm := range slices.Sorted(maps.Keys(m.Realms)) {
		c.realm("realms."+realm, realm, m.Realms[realm])
	}
	c.accounts("operators.users", m.Operators.Users)
	c.accounts("operators.groups", m.Operators.Groups)

	c.positive("jobs.keep", m.Jobs.Keep)
	c.size("jobs.capture_max", m.Jobs.CaptureMax)
	c.positive("jobs.grace", m.Jobs.Grace)
	c.count("jobs.max_running", m.Jobs.MaxRunning)

	c.optionalPath("audit.file", m.Audit.File)
	c.size("audit.rotate", m.Audit.Rotate)
	c.count("audit.keep", m.Audit.Keep)
	c.textfile("metrics.textfile", m.Metrics.Textfile)
	c.oneOf("log.level", []string{m.Log.Level}, "debug", "info", "warn", "error")
	c.oneOf("log.format", []string{m.Log.Format}, "auto", "text", "json")
}

func (c *checker) users(u *rawUsers) {
	c.account("users.daemon", u.Daemon)
	c.account("users.sync", u.Sync)
	if u.Daemon == "root" {
		c.fault("users.daemon", "is root; the daemon runs without any privilege")
	}
	switch u.Sync {
	case "root":
		c.fault("users.sync", "is root; the sync worker runs without any privilege")
	case u.Daemon:
		c.fault("users.sync", "is the same as users.daemon; Vault's tokens are kept from the daemon by being another user's")
	}
}

func (c *checker) vault(v *rawVault) {
	c.address("vault.address", v.Address)
	c.optionalPath("vault.ca_file", v.CAFile)
	c.mount("vault.mount", v.Mount)
	if v.Namespace != "" {
		c.mount("vault.namespace", strings.TrimSuffix(v.Namespace, "/"))
	}
	a := &v.Auth
	const at = "vault.auth"
	if !slices.Contains([]string{AuthAppRole, AuthCert, AuthJWT, AuthTokenFile}, a.Method) {
		c.fault(at+".method", "%q is unknown; known: approle, cert, jwt, token_file", a.Method)
		return
	}
	if a.SecretIDWrapped && a.Method != AuthAppRole {
		c.fault(at+".secret_id_wrapped", "is not used by method %s; remove it", a.Method)
	}
	if a.Method == AuthCert && strings.HasPrefix(v.Address, "http:") {
		c.fault("vault.address", "%q has no TLS, which method cert shows its certificate in; use https", v.Address)
	}
	if a.Mount != "" {
		c.mount(at+".mount", a.Mount)
	}
	needs := map[string][]string{
		AuthAppRole:   {"role_id_file", "secret_id_file"},
		AuthCert:      {"cert_file", "key_file"},
		AuthJWT:       {"jwt_file"},
		AuthTokenFile: {"token_file"},
	}[a.Method]
	for _, file := range []struct{ name, path string }{
		{"role_id_file", a.RoleIDFile},
		{"secret_id_file", a.SecretIDFile},
		{"cert_file", a.CertFile},
		{"key_file", a.KeyFile},
		{"jwt_file", a.JWTFile},
		{"token_file", a.TokenFile},
	} {
		place := at + "." + file.name
		switch needed := slices.Contains(needs, file.name); {
		case needed && file.path == "":
			c.fault(place, "is missing; method %s needs it", a.Method)
		case needed:
			c.path(place, file.path)
		case file.path != "":
			c.fault(place, "is not used by method %s; remove it", a.Method)
		}
	}
	switch wanted := a.Method == AuthCert || a.Method == AuthJWT || a.Method == AuthAppRole && a.SecretIDWrapped; {
	case a.Role != "" && wanted:
		c.name(at+".role", a.Role)
	case a.Role != "":
		c.fault(at+".role", "is not used by method %s; remove it", a.Method)
	}
	if a.Method == AuthTokenFile && c.doc.Has(at+".mount") {
		c.fault(at+".mount", "is not used by method %s; remove it", a.Method)
	}
}

// address wants a URL that a secret may be sent to: https, or http that does not leave this machine.
func (c *checker) address(place, address string) {
	if address == "" {
		c.fault(place, "is missing; give the Vault server's URL, such as https://vault.example.com:8200")
		return
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "":
		c.fault(place, "%q is not a URL such as https://vault.example.com:8200", address)
	case u.User != nil:
		c.fault(place, "has a user name or password in it; remove it")
	case u.RawQuery != "" || u.Fragment != "":
		c.fault(place, "%q has a query or a fragment; remove it", address)
	case u.Scheme == "http":
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
			c.fault(place, "%q sends secrets unencrypted; use https (http only for a loopback address such as 127.0.0.1)", address)
		}
	case u.Scheme != "https":
		c.fault(place, "%q is not https", address)
	}
}

func (c *checker) key(spec string) {
	const place = "local_vault.key"
	kind, path, hasPath := strings.Cut(spec, ":")
	switch {
	case (kind == "keyfile" || kind == "tpm2") && path != "":
		c.path(place, path)
	case kind == "keyfile" || !slices.Contains([]string{"credential", "tpm2", "dpapi"}, kind) || hasPath:
		c.fault(place, "%q is not one of keyfile:PATH, credential, tpm2, tpm2:PATH, dpapi", spec)
	default:
		c.built("local_vault.key", place, kind)
	}
}

func (c *checker) realm(place, name string, r rawRealm) {
	c.name(place, name)
	switch r.Model {
	case "opcon", "automic", "stonebranch":
		c.built("realms.*.model", place+".model", r.Model)
	case "":
		c.fault(place+".model", "is missing; known: automic, opcon, stonebranch")
	default:
		c.fault(place+".model", "%q is unknown; known: automic, opcon, stonebranch", r.Model)
	}
	if r.Agent == "" {
		c.fault(place+".agent", "is missing; give the name by which the controller knows this machine's agent")
	}
	c.notBlank(place+".agent_services", r.AgentServices)
}

// name wants what may be one element of a path in Vault.
func (c *checker) name(place, name string) {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", r)
	})
	switch {
	case name == "":
		c.fault(place, "is empty; a name has letters, digits, dot, underscore and hyphen")
	case bad || name == "." || name == "..":
		c.fault(place, "%q is not a name; it may have letters, digits, dot, underscore and hyphen", name)
	case len(name) > maxName:
		c.fault(place, "%q is longer than %d characters", name, maxName)
	}
}

func (c *checker) names(place string, names []string) {
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", place, i)
		c.name(at, name)
		if first := slices.Index(names, name); first < i {
			c.fault(at, "%q is there already, as %s[%d]", name, place, first)
		}
	}
}

// account wants the name of an OS user or group; whether it exists is asked when it is used.
func (c *checker) account(place, name string) {
	if name == "" || strings.ContainsAny(name, ":/,") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		c.fault(place, "%q is not the name of a user or group", name)
	}
}

func (c *checker) accounts(place string, names []string) {
	for i, name := range names {
		c.account(fmt.Sprintf("%s[%d]", place, i), name)
	}
}

func (c *checker) notBlank(place string, texts []string) {
	for i, s := range texts {
		if strings.TrimSpace(s) == "" {
			c.fault(fmt.Sprintf("%s[%d]", place, i), "is empty; remove it")
		}
	}
}

// oneOf wants each of the values to be known. A single value is at the place itself, a list's at its index.
func (c *checker) oneOf(place string, values []string, known ...string) {
	for i, v := range values {
		if slices.Contains(known, v) {
			continue
		}
		at := place
		if element := fmt.Sprintf("%s[%d]", place, i); c.doc.Has(element) {
			at = element
		}
		c.fault(at, "%q is unknown; known: %s", v, strings.Join(known, ", "))
	}
}

// path wants an absolute path that is written as it is meant.
func (c *checker) path(place, path string) {
	switch {
	case path == "":
		c.fault(place, "is empty; give an absolute path")
	case !filepath.IsAbs(path) && path[0] != '/':
		c.fault(place, "%q is not an absolute path", path)
	case slices.Contains(strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == filepath.Separator }), ".."):
		c.fault(place, "%q has .. in it; write the path that is meant", path)
	}
}

func (c *checker) optionalPath(place, path string) {
	if path != "" {
		c.path(place, path)
	}
}

// textfile wants a name that node_exporter reads: it passes over all others, and says nothing.
func (c *checker) textfile(place, path string) {
	c.optionalPath(place, path)
	if path != "" && !strings.HasSuffix(path, ".prom") {
		c.fault(place, "is %q; node_exporter reads only files whose names end in .prom", path)
	}
}

func (c *checker) socket(place, path string) {
	c.path(place, path)
	if len(path) > maxSocket {
		c.fault(place, "is %d octets long; a socket's path has at most %d", len(path), maxSocket)
	}
}

// mount wants a mount's path without slashes around it.
func (c *checker) mount(place, mount string) {
	switch {
	case mount == "":
		c.fault(place, "is empty; give the path of a mount, such as batch")
	case strings.HasPrefix(mount, "/") || strings.HasSuffix(mount, "/"):
		c.fault(place, "%q begins or ends with a slash; write it without", mount)
	case strings.ContainsAny(mount, " ?#%\\") || slices.ContainsFunc(strings.Split(mount, "/"), func(s string) bool { return s == "" || s == "." || s == ".." }):
		c.fault(place, "%q is not the path of a mount", mount)
	}
}

func (c *checker) positive(place string, d strict.Duration) {
	if d <= 0 {
		c.fault(place, "must be more than zero")
	}
}

func (c *checker) size(place string, s strict.Size) {
	if s <= 0 {
		c.fault(place, "must be more than zero")
	}
}

func (c *checker) count(place string, n int) {
	if n <= 0 {
		c.fault(place, "must be more than zero, not %d", n)
	}
}

func (c *checker) sha256(place, sum string) {
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != 32 {
		c.fault(place, "%q is not a SHA-256 of 64 hexadecimal digits", sum)
	}
}
