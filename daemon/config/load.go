package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/strict"
	"batchwarden/platform/safefile"
)

const (
	maxFile        = 4 << 20 // octets of one configuration file
	maxClientFiles = 1000
)

// A reader gives the content of one file. What it says about a file's owner is an error (Load) or a warning (Check).
type reader func(file string) ([]byte, error)

// Load reads the configuration whose main file is file. Every file has to be root's and writable by nobody else, and so
// do the directories they lie in. The error is strict.Faults with every fault of every file.
func Load(file string) (*Config, error) {
	c, _, err := LoadSum(file)
	return c, err
}

// LoadSum is Load, and says with a refused configuration too which one it was: the sum is that of Config.SHA256, over
// the files that could be read.
func LoadSum(file string) (c *Config, sum string, err error) {
	h := sha256.New()
	c, err = gather(file, func(file string) ([]byte, error) {
		data, err := safe(file)
		if err == nil {
			fmt.Fprintf(h, "%x  %s\n", sha256.Sum256(data), file) // a hash takes everything
		}
		return data, err
	})
	sum = hex.EncodeToString(h.Sum(nil))
	if c != nil {
		c.SHA256 = sum
	}
	return c, sum, err
}

// Check reads like Load, for anybody and before a file is put where it belongs: what Load would refuse because of an
// owner or a mode is a warning, one sentence each, as are the configuration's own Warnings.
func Check(file string) (*Config, []string, error) {
	var warnings []string
	c, err := gather(file, plain(&warnings, safe))
	if err != nil {
		return nil, warnings, err
	}
	return c, append(warnings, c.Warnings...), nil
}

// safe reads a file that only root can have written.
func safe(file string) ([]byte, error) {
	return safefile.Read(file, maxFile, safefile.Rules{})
}

// private reads a file that, besides, nobody else than root can read.
func private(file string) ([]byte, error) {
	return safefile.Read(file, maxFile, safefile.Rules{Mode: 0o600})
}

// plain reads any file and warns where safe would refuse.
func plain(warnings *[]string, safe reader) reader {
	return func(file string) ([]byte, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close() // only read
		data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if err != nil {
			return nil, err
		}
		if len(data) > maxFile {
			return nil, fmt.Errorf("is longer than %d octets", maxFile)
		}
		if _, err := safe(file); err != nil {
			*warnings = append(*warnings, fmt.Sprintf("%s: the services would refuse this file: %s", file, short(file, err)))
		}
		return data, nil
	}
}

// gather reads the main file and clients.d beside it and joins them, or returns every fault of them all.
func gather(file string, read reader) (*Config, error) {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "" // then machine has to be given, which the check of it says
	}
	m := defaults(hostname)
	var faults strict.Faults
	files := []string{file}
	checked, err := parse(file, read, &m)
	if err != nil {
		faults = append(faults, err.(strict.Faults)...)
	}
	realms := m.Realms
	switch {
	case checked == nil || checked.faulty["realms"]:
		realms = nil
	case realms == nil:
		realms = map[string]rawRealm{}
	}
	seen := map[string]written{}
	var clients []Client
	join := func(c *checker, file string, entries []rawClient) {
		c.clients(file, entries, realms, seen)
		if fs, bad := c.doc.Err().(strict.Faults); bad {
			faults = append(faults, fs...)
		}
		for i := range entries {
			clients = append(clients, c.build(file, fmt.Sprintf("clients[%d]", i), &entries[i]))
		}
	}
	if checked != nil {
		checked.main(&m)
		m.below()
		join(checked, file, m.Clients)
	}
	more, err := clientFiles(filepath.Join(filepath.Dir(file), "clients.d"))
	if err != nil {
		faults = append(faults, err.(strict.Faults)...)
	}
	for _, file := range more {
		f := clientsFile{Version: 1}
		c, err := parse(file, read, &f)
		if err != nil {
			faults = append(faults, err.(strict.Faults)...)
			continue
		}
		c.version(f.Version)
		join(c, file, f.Clients)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	c := m.config()
	c.Clients, c.Files = clients, append(files, more...)
	c.unmatched()
	c.unheard()
	c.unserved()
	return c, nil
}

// Paths are what has to be watched for changes of the configuration whose main file is file: that, clients.d, and
// whatever is in there.
func Paths(file string) []string {
	dir := filepath.Join(filepath.Dir(file), "clients.d")
	paths := []string{file, dir}
	entries, _ := os.ReadDir(dir) // there need not be one
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return paths
}

// parse reads one file into v. A nil checker comes with strict.Faults; a checker comes with none, what Decode found
// waits in its document.
func parse(file string, read reader, v any) (*checker, error) {
	data, err := read(file)
	if err != nil {
		return nil, strict.Faults{{File: file, Text: short(file, err)}}
	}
	doc, err := strict.Parse(file, data)
	if err != nil {
		return nil, err
	}
	return decoded(doc, v), nil
}

// clientFiles lists clients.d in the order in which its files count. There need not be one.
func clientFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, strict.Faults{{File: dir, Text: short(dir, err)}}
	}
	var files []string
	var faults strict.Faults
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(e.Name()); {
		case strings.HasPrefix(e.Name(), "."):
		case ext == ".yaml":
			files = append(files, file)
		case ext == ".yml":
			faults = append(faults, strict.Fault{File: file, Text: "would not be read: a name here ends in .yaml; rename it"})
		}
	}
	if len(files) > maxClientFiles {
		faults = append(faults, strict.Fault{File: dir, Text: fmt.Sprintf("has more than %d files", maxClientFiles)})
	}
	if faults != nil {
		return nil, faults
	}
	slices.Sort(files)
	return files, nil
}

// short is what went wrong with a file without the file's name, which the fault carries already.
func short(file string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "cannot be read by this user; run as root or ask for permission"
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok && p.Path == file {
		return p.Op + ": " + p.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), fmt.Sprintf("safefile: %q: ", file))
}

// config is what the daemon uses of a file that passed its checks, but for clients.
func (m *mainFile) config() *Config {
	c := &Config{
		Machine:       m.Machine,
		Platforms:     m.Platforms,
		Groups:        m.Groups,
		StateDir:      m.StateDir,
		Socket:        m.Socket,
		Launcher:      Launcher(m.Launcher),
		Users:         Users(m.Users),
		SystemdSocket: m.SystemdSocket,
		Vault: Vault{
			Address:    strings.TrimRight(m.Vault.Address, "/"),
			CAFile:     m.Vault.CAFile,
			ServerName: m.Vault.ServerName,
			Namespace:  m.Vault.Namespace,
			Mount:      m.Vault.Mount,
			Auth:       Auth(m.Vault.Auth),
		},
		Sync: Sync{
			Interval:       time.Duration(m.Sync.Interval),
			Sweep:          time.Duration(m.Sync.Sweep),
			MaxStale:       time.Duration(m.Sync.MaxStale),
			PolicyMaxStale: time.Duration(m.Sync.PolicyMaxStale),
			Sources:        m.Sync.Sources,
		},
		LocalVault: LocalVault(m.LocalVault),
		Realms:     make(map[string]Realm, len(m.Realms)),
		Operators:  Operators(m.Operators),
		Jobs: Jobs{
			Keep:       time.Duration(m.Jobs.Keep),
			CaptureMax: int64(m.Jobs.CaptureMax),
			Grace:      time.Duration(m.Jobs.Grace),
			MaxRunning: m.Jobs.MaxRunning,
		},
		Audit: Audit{
			File:   m.Audit.File,
			Sync:   time.Duration(m.Audit.Sync),
			Rotate: int64(m.Audit.Rotate),
			Keep:   m.Audit.Keep,
			Argv:   m.Audit.Argv,

			Journald: m.Audit.Journald,
		},
		Metrics: Metrics(m.Metrics),
		Log:     Log(m.Log),
	}
	for name, r := range m.Realms {
		c.Realms[name] = Realm(r)
	}
	return c
}

// LoadLimits reads limits.yaml, which has to be root's and readable by nobody else. The error is strict.Faults.
func LoadLimits(file string) (*Limits, error) {
	data, err := private(file)
	if err != nil {
		return nil, strict.Faults{{File: file, Text: short(file, err)}}
	}
	return ParseLimits(file, data)
}

// CheckLimits reads like LoadLimits, for anybody who may read the file: what LoadLimits would refuse because of an
// owner or a mode is a warning.
func CheckLimits(file string) (*Limits, []string, error) {
	var warnings []string
	data, err := plain(&warnings, private)(file)
	if err != nil {
		return nil, warnings, strict.Faults{{File: file, Text: short(file, err)}}
	}
	l, err := ParseLimits(file, data)
	return l, warnings, err
}
