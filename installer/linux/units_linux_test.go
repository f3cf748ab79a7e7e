package linux

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// analyze runs systemd-analyze, where it is.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		const need = "needs systemd-analyze; as root: apt-get install systemd"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(need)
		}
		t.Skip(need)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// units writes the units into a directory; their programs are ones that are there.
func units(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"batchwardend.service": DaemonUnit, "batchwarden-launcher.service": LauncherUnit, "batchwarden.socket": SocketUnit,
	} {
		text = strings.NewReplacer("/usr/lib/batchwarden/batchwarden-launcher", "/bin/true", "/usr/lib/batchwarden/batchwardend", "/bin/true").Replace(text)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDaemonIsSandboxed(t *testing.T) {
	// The threshold counts tenths: at most 0.8.
	const threshold = "8"
	file := filepath.Join(units(t), "batchwardend.service")
	out, err := analyze(t, "security", "--offline=true", "--threshold="+threshold, file)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// A service without all that does not pass, so that the question means something.
	loose := filepath.Join(t.TempDir(), "loose.service")
	if err := os.WriteFile(loose, []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := analyze(t, "security", "--offline=true", "--threshold="+threshold, loose); err == nil {
		t.Errorf("a unit without a sandbox passes: %s", out)
	}
	if strings.Contains(DaemonUnit, "\nPrivateUsers=") || !strings.Contains(DaemonUnit, "memfd_secret\n") {
		t.Error("peers would be 65534, or memfd_secret be missing")
	}
}

func TestUnitsAreUnderstood(t *testing.T) {
	dir := units(t)
	out, _ := analyze(t, "verify", "--man=no", filepath.Join(dir, "batchwardend.service"), filepath.Join(dir, "batchwarden-launcher.service"), filepath.Join(dir, "batchwarden.socket"))
	for line := range strings.Lines(out) { // it also speaks of this machine's own units
		if strings.Contains(line, "batchwarden") && !strings.Contains(line, "Unknown user") {
			t.Error(line)
		}
	}
}

// Jobs inherit what the launcher's unit says. So what it may say is listed here.
func TestLauncherIsNot(t *testing.T) {
	harmless := []string{"Type", "ExecStart", "Restart", "RestartSec", "RestartPreventExitStatus", "TimeoutStartSec", "TimeoutStopSec", "WatchdogSec",
		"Delegate", "KillMode", "OOMPolicy", "TasksMax"}
	_, service, _ := strings.Cut(LauncherUnit, "[Service]\n")
	service, _, _ = strings.Cut(service, "[Install]")
	var keys []string
	for line := range strings.Lines(service) {
		if key, _, ok := strings.Cut(line, "="); ok && line[0] != '#' {
			keys = append(keys, key)
			if !slices.Contains(harmless, key) {
				t.Errorf("%s= would hold for every job", key)
			}
		}
	}
	for _, want := range []string{"Delegate=yes\n", "KillMode=process\n", "OOMPolicy=continue\n", "TasksMax=infinity\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("%q is missing among %v", want, keys)
		}
	}
	for _, unit := range []string{DaemonUnit, LauncherUnit} {
		for _, tie := range []string{"\nRequires=", "\nBindsTo=", "\nPartOf=", "\nRequisite="} {
			if strings.Contains(unit, tie) {
				t.Errorf("a restart of one would take the other along: %s", tie)
			}
		}
	}
}
