package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"batchwarden/daemon/strict"
)

// mainFile is batchwarden.yaml as it is written. Members that are absent keep what defaults put there.
type mainFile struct {
	Version       int                 `json:"version"`
	Machine       string              `json:"machine"`
	Platforms     []string            `json:"platforms"`
	Groups        []string            `json:"groups"`
	StateDir      string              `json:"state_dir"`
	Socket        string              `json:"socket"`
	Launcher      rawLauncher         `json:"launcher"`
	Users         rawUsers            `json:"users"`
	SystemdSocket string              `json:"systemd_socket"`
	Vault         rawVault            `json:"vault"`
	Sync          rawSync             `json:"sync"`
	LocalVault    rawLocalVault       `json:"local_vault"`
	Realms        map[string]rawRealm `json:"realms"`
	Clients       []rawClient         `json:"clients"`
	Operators     rawOperators        `json:"operators"`
	Jobs          rawJobs             `json:"jobs"`
	Audit         rawAudit            `json:"audit"`
	Metrics       rawMetrics          `json:"metrics"`
	Log           rawLog              `json:"log"`
}

// clientsFile is one of clients.d/*.yaml.
type clientsFile struct {
	Version int         `json:"version"`
	Clients []rawClient `json:"clients"`
}

type rawLauncher struct {
	Socket     string `json:"socket"`
	StateDir   string `json:"state_dir"`
	CgroupRoot string `json:"cgroup_root"`
}

type rawUsers struct {
	Daemon string `json:"daemon"`
	Sync   string `json:"sync"`
}

type rawVault struct {
	Address    string  `json:"address"`
	CAFile     string  `json:"ca_file"`
	ServerName string  `json:"server_name"`
	Namespace  string  `json:"namespace"`
	Mount      string  `json:"mount"`
	Auth       rawAuth `json:"auth"`
}

type rawAuth struct {
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

type rawSync struct {
	Interval       strict.Duration `json:"interval"`
	Sweep          strict.Duration `json:"sweep"`
	MaxStale       strict.Duration `json:"max_stale"`
	PolicyMaxStale strict.Duration `json:"policy_max_stale"`
	Sources        []string        `json:"sources"`
}

type rawLocalVault struct {
	Key string `json:"key"`
}

type rawRealm struct {
	Model         string   `json:"model"`
	Agent         string   `json:"agent"`
	AgentServices []string `json:"agent_services"`
}

type rawClient struct {
	Name            string          `json:"name"`
	Match           rawMatch        `json:"match"`
	Realms          []string        `json:"realms"`
	May             []string        `json:"may"`
	Subjects        rawSubjects     `json:"subjects"`
	BatchUsers      []string        `json:"batch_users"`
	Rate            rate            `json:"rate"`
	Concurrent      int             `json:"concurrent"`
	PAM             string          `json:"pam"`
	SubjectRequired bool            `json:"subject_required"`
	Subject         *rawSubject     `json:"subject"`
	Object          json.RawMessage `json:"object"`
}

type rawMatch struct {
	User           string `json:"user"`
	Group          string `json:"group"`
	Exe            string `json:"exe"`
	SHA256         string `json:"sha256"`
	Unit           string `json:"unit"`
	CredentialUnit string `json:"credential_unit"`
}

type rawSubjects struct {
	Users      []string `json:"users"`
	Roles      []string `json:"roles"`
	Privileged []string `json:"privileged"`
}

type rawSubject struct {
	User  string   `json:"user"`
	Roles []string `json:"roles"`
	By    string   `json:"by"`
}

type rawOperators struct {
	Users  []string `json:"users"`
	Groups []string `json:"groups"`
}

type rawJobs struct {
	Keep       strict.Duration `json:"keep"`
	CaptureMax strict.Size     `json:"capture_max"`
	Grace      strict.Duration `json:"grace"`
	MaxRunning int             `json:"max_running"`
}

type rawAudit struct {
	File   string      `json:"file"`
	Sync   auditSync   `json:"sync"`
	Rotate strict.Size `json:"rotate"`
	Keep   int         `json:"keep"`
	Argv   bool        `json:"argv"`

	Journald bool `json:"journald"`
}

type rawMetrics struct {
	Textfile string `json:"textfile"`
}

type rawLog struct {
	Level  string `json:"level"`
	Format string `json:"format"`
}

// limitsFile is limits.yaml as it is written.
type limitsFile struct {
	Version       int               `json:"version"`
	Requesters    []string          `json:"requesters"`
	AllowRoot     bool              `json:"allow_root"`
	MinUID        uint32            `json:"min_uid"`
	MinGID        uint32            `json:"min_gid"`
	AllowUsers    []string          `json:"allow_users"`
	DenyUsers     []string          `json:"deny_users"`
	DenyGroups    []string          `json:"deny_groups"`
	AllowCommands []rawCommand      `json:"allow_commands"`
	AllowEnv      []string          `json:"allow_env"`
	Max           map[string]uint64 `json:"max"`
}

type rawCommand struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// defaults is batchwarden.yaml with nothing in it. What lies below state_dir by default is filled in afterwards.
func defaults(hostname string) mainFile {
	machine, _, _ := strings.Cut(hostname, ".")
	return mainFile{
		Version:   1,
		Machine:   machine,
		Platforms: []string{"unix"},
		StateDir:  "/var/lib/batchwarden",
		Socket:    "/run/batchwarden/batchwarden.sock",
		Launcher: rawLauncher{
			Socket:     "/run/batchwarden-launcher/launcher.sock",
			StateDir:   "/var/lib/batchwarden-launcher",
			CgroupRoot: "auto",
		},
		Users: rawUsers{Daemon: "batchwarden", Sync: "batchwarden-sync"},
		Vault: rawVault{Mount: "batch", Auth: rawAuth{Method: AuthAppRole}},
		Sync: rawSync{
			Interval:       strict.Duration(30 * time.Second),
			Sweep:          strict.Duration(15 * time.Minute),
			MaxStale:       strict.Duration(72 * time.Hour),
			PolicyMaxStale: strict.Duration(24 * time.Hour),
		},
		Operators: rawOperators{Users: []string{"root"}, Groups: []string{"batchwarden-admin"}},
		Jobs: rawJobs{
			Keep:       strict.Duration(168 * time.Hour),
			CaptureMax: 64 << 20,
			Grace:      strict.Duration(30 * time.Second),
			MaxRunning: 2000,
		},
		Audit: rawAudit{Sync: auditSync(100 * time.Millisecond), Rotate: 256 << 20, Keep: 30},
		Log:   rawLog{Level: "info", Format: "auto"},
	}
}

// below fills in the defaults that follow state_dir.
func (m *mainFile) below() {
	if m.LocalVault.Key == "" {
		m.LocalVault.Key = keyfile + filepath.Join(m.StateDir, "key")
	}
	if m.LocalVault.Key == tpm2 {
		m.LocalVault.Key = tpm2 + ":" + filepath.Join(m.StateDir, "key.tpm2")
	}
	if m.Audit.File == "" {
		m.Audit.File = filepath.Join(m.StateDir, "audit.jsonl")
	}
	if m.Vault.Auth.Mount == "" && m.Vault.Auth.Method != AuthTokenFile {
		m.Vault.Auth.Mount = m.Vault.Auth.Method
	}
}

func defaultLimits() limitsFile {
	return limitsFile{
		Version:    1,
		MinUID:     1000,
		MinGID:     100,
		DenyGroups: []string{"root", "disk", "shadow", "docker", "lxd", "sudo", "wheel", "adm"},
	}
}

// rate reads "200/s", "30/m", "1000/h".
type rate Rate

func (r *rate) UnmarshalText(text []byte) error {
	number, unit, _ := strings.Cut(string(text), "/")
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n == 0 || per == 0 {
		return fmt.Errorf("%q is not a rate such as 200/s, 30/m or 1000/h", text)
	}
	*r = rate{Events: int(n), Per: per}
	return nil
}

// auditSync reads "always" or a duration.
type auditSync time.Duration

func (s *auditSync) UnmarshalText(text []byte) error {
	if string(text) == "always" {
		*s = 0
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is neither \"always\" nor a duration such as 100ms", text)
	}
	if d <= 0 {
		return errors.New("must be more than zero; for a write that is durable before the act say \"always\"")
	}
	*s = auditSync(d)
	return nil
}
