package daemon_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// layers says which packages of ours each package may import. A package not
// listed may not exist; an import not listed may not be added. It is a
// statement of design: change it in a commit of its own, and say why.
//
// Read upwards, it is the story of a launch; read across vault/, the story
// of a secret.
const layers = `
platform/secret        :
platform/lockmem       : platform/secret
platform/account       :
platform/account/nss   : platform/account
platform/pam           :
platform/trial         :
platform/older         :
platform/safefile      :
platform/confine       :
platform/account/create : platform/account
platform/service        :
platform/service/manage :
platform/memscan       :
platform/localsock     :
platform/peer          :
platform/boottime      :
platform/disk          :
platform/kernel        :
platform/process       :
platform/facts         :
platform/heap          :
platform/watch         :
platform/hostkey       : platform/lockmem platform/safefile
platform/hostkey/mint  : platform/hostkey platform/lockmem platform/safefile
platform/launch        : platform/account platform/localsock platform/peer
platform/launch/become : platform/account
platform/launch/keeper : platform/account platform/boottime platform/launch platform/launch/become platform/localsock platform/pam platform/peer platform/safefile platform/service

vault/snapshot :
vault/documents : vault/snapshot platform/secret
vault/sealed   : vault/snapshot platform/hostkey platform/lockmem platform/safefile
vault/errand   : vault/sealed vault/snapshot platform/secret
vault/remote   : vault/documents vault/errand vault/sealed vault/snapshot platform/secret
vault/refresh  : vault/errand vault/sealed vault/snapshot platform/lockmem
vault/admin    : vault/documents platform/secret
vault/probe    :

ipc/wire   :
ipc/client : ipc/wire platform/localsock
ipc/server : ipc/wire platform/localsock platform/lockmem platform/peer

daemon/version            :
daemon/doctor             :
daemon/strict             :
daemon/policy             :
daemon/policy/automic     : daemon/policy daemon/strict
daemon/policy/stonebranch : daemon/policy daemon/strict
daemon/policy/opcon       : daemon/policy daemon/strict
daemon/audit              : platform/disk platform/safefile
daemon/config             : daemon/strict platform/safefile
daemon/logs               : daemon/config
daemon/limits             : daemon/config platform/account
daemon/broker             : daemon/audit daemon/config daemon/logs daemon/policy ipc/wire platform/account platform/launch platform/lockmem platform/peer vault/snapshot
daemon/metrics            : daemon/audit daemon/broker ipc/wire platform/lockmem platform/safefile
daemon                    : daemon/audit daemon/broker daemon/config daemon/logs daemon/metrics daemon/policy daemon/strict ipc/server ipc/wire platform/boottime platform/heap platform/hostkey platform/launch platform/lockmem platform/localsock platform/peer platform/safefile platform/service platform/watch vault/errand vault/refresh vault/sealed vault/snapshot

daemon/cmd/batchwardend         : daemon daemon/config daemon/version daemon/policy daemon/policy/automic daemon/policy/stonebranch daemon/policy/opcon platform/service daemon/logs
daemon/cmd/batchwarden          : daemon/audit daemon/config daemon/doctor daemon/version daemon/policy daemon/policy/automic daemon/policy/stonebranch daemon/policy/opcon daemon/strict installer/linux ipc/client ipc/wire platform/account platform/account/create platform/account/nss platform/disk platform/hostkey platform/hostkey/mint platform/kernel platform/launch/keeper platform/localsock platform/lockmem platform/process platform/safefile platform/service/manage vault/admin vault/documents vault/errand vault/probe vault/sealed vault/snapshot platform/facts
daemon/cmd/batchwarden-launcher : daemon/config daemon/limits daemon/version platform/account/nss platform/launch/become platform/launch/keeper platform/pam platform/service platform/watch daemon/logs
daemon/cmd/batchwarden-sync     : daemon/config vault/errand vault/remote vault/sealed vault/snapshot platform/confine platform/lockmem platform/service

platform/secret/secrettest :
daemon/policy/policytest : daemon/policy
vault/vaulttest          : vault/admin
vault/remote/remotetest  : vault/errand vault/remote vault/sealed vault/snapshot vault/vaulttest
installer/linux          :
installer/testbed        : ipc/wire platform/older vault/vaulttest
installer/demo           : installer/testbed ipc/wire platform/memscan vault/vaulttest
installer/bench          : installer/testbed ipc/wire platform/localsock platform/lockmem platform/peer platform/service vault/sealed vault/snapshot vault/vaulttest
installer/package        :
`

// testSupport lists the packages that tests, the demo and the benchmarks are
// built with; nothing that is installed may import them. Those marked may
// start processes, and be other users.
var testSupport = map[string]bool{
	"platform/memscan":           false,
	"platform/secret/secrettest": false,
	"platform/trial":             true,
	"platform/older":             false,
	"daemon/policy/policytest":   false,
	"vault/remote/remotetest":    false,
	"vault/vaulttest":            true,
	"installer/testbed":          true,
	"installer/demo":             true,
	"installer/bench":            true,
	"installer/package":          true,
}

// without says what a package must not contain, however it got there: the
// launcher's jobs would inherit what memguard does to the process, and a
// network stack or a Vault client has no business beside root or beside
// opened secrets.
var without = map[string][]string{
	"platform/launch/become":          {"net/http", "crypto/tls", "github.com/awnumar/memguard", "github.com/hashicorp/vault/api"},
	"platform/launch/keeper":          {"net/http", "crypto/tls", "github.com/awnumar/memguard", "github.com/hashicorp/vault/api"},
	"daemon/cmd/batchwarden-launcher": {"net/http", "crypto/tls", "github.com/kardianos/service", "github.com/awnumar/memguard", "github.com/hashicorp/vault/api"},
	"daemon/cmd/batchwardend":         {"github.com/hashicorp/vault/api", "github.com/kardianos/service", "os/exec"},
}

// builds are the platforms that everything builds for.
var builds = []target{{"linux", "amd64"}, {"linux", "s390x"}, {"windows", "amd64"}}

func TestLayers(t *testing.T) {
	may := table(layers)
	for _, on := range builds {
		m := readModule(t, "..", on)
		for _, fault := range m.faults(may, testSupport) {
			t.Error(fault)
		}
		for _, from := range slices.Sorted(maps.Keys(without)) {
			if m.packages[from] == nil {
				t.Errorf("%s: %s is not there", on, from)
				continue
			}
			for _, banned := range without[from] {
				if path := m.path(from, banned); path != nil {
					t.Errorf("%s: %s contains %s: %s", on, from, banned, strings.Join(path, " -> "))
				}
			}
		}
		if len(m.lost) > 0 {
			t.Errorf("%s: no files of %s: run go mod download", on, strings.Join(m.lost, ", "))
		}
	}
}

// TestLayersSeesViolations shows that each rule can fail: a module that breaks
// all of them must yield exactly these faults.
func TestLayersSeesViolations(t *testing.T) {
	const allowed = `
platform/good  :
daemon/good    : platform/good
daemon/policy  :
ipc/lone       :
vault/ask      : vault/helper
vault/helper   :
vault/suite    :
`
	broken := func(name string, imports ...string) *module {
		return &module{on: target{"linux", "amd64"}, packages: map[string]*source{name: {imports: imports}}}
	}
	support := map[string]bool{"vault/helper": true, "vault/suite": false}
	for _, c := range []struct {
		name string
		m    *module
		want string
	}{
		{"an allowed import", broken("daemon/good", ours+"platform/good", "fmt"), ""},
		{"platform may touch the system", broken("platform/good", "unsafe", "C", "golang.org/x/sys/unix", "os/exec"), ""},
		{"test support may start processes", broken("vault/helper", "os/exec", "syscall"), ""},
		{"not all test support", broken("vault/suite", "os/exec"), "linux/amd64: vault/suite imports os/exec: only platform/ touches the operating system"},
		{"an unlisted package", broken("daemon/new"), "linux/amd64: daemon/new is not in the table"},
		{"an unlisted import", broken("daemon/good", ours+"ipc/lone"), "linux/amd64: daemon/good may not import ipc/lone"},
		{"os/exec", broken("daemon/good", "os/exec"), "linux/amd64: daemon/good imports os/exec: only platform/ touches the operating system"},
		{"cgo", broken("ipc/lone", "C"), "linux/amd64: ipc/lone imports C: only platform/ touches the operating system"},
		{"x/sys", broken("ipc/lone", "golang.org/x/sys/windows/svc"), "linux/amd64: ipc/lone imports golang.org/x/sys/windows/svc: only platform/ touches the operating system"},
		{"x/sys in test support", broken("vault/helper", "unsafe"), "linux/amd64: vault/helper imports unsafe: only platform/ touches the operating system"},
		{"a clock in policy", broken("daemon/policy", "time"), "linux/amd64: daemon/policy imports time: policy is pure"},
		{"the network below policy", &module{on: target{"linux", "amd64"}, packages: map[string]*source{
			"daemon/policy": {imports: []string{"net/netip"}}}}, "linux/amd64: daemon/policy imports net/netip: policy is pure"},
		{"a product package on test support", broken("vault/ask", ours+"vault/helper"), "linux/amd64: vault/ask imports vault/helper, which is for tests only"},
		{"runtime.GOOS", &module{on: target{"linux", "amd64"}, packages: map[string]*source{
			"platform/good": {goos: []string{"good.go"}}}}, "linux/amd64: platform/good/good.go asks runtime.GOOS: say it with a file per system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(c.m.faults(table(allowed), support), "\n")
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestLayersSeesWhatIsContained shows that the search through everything a
// package is made of goes through other modules and through the standard
// library, and finds nothing where there is nothing.
func TestLayersSeesWhatIsContained(t *testing.T) {
	m := readModule(t, "..", builds[0])
	add := func(name string, imports ...string) { m.packages[name] = &source{imports: imports} }
	add("daemon/a", ours+"daemon/b", "errors")
	add("daemon/b", "github.com/hashicorp/vault/api")
	add("daemon/c", "net/rpc", ours+"daemon/b")
	for _, c := range []struct{ from, to, want string }{
		{"daemon/a", "github.com/hashicorp/vault/api", "daemon/a -> daemon/b -> github.com/hashicorp/vault/api"},
		{"daemon/a", "golang.org/x/time/rate", "daemon/a -> daemon/b -> github.com/hashicorp/vault/api -> golang.org/x/time/rate"},
		{"daemon/c", "crypto/tls", "daemon/c -> net/rpc -> net/http -> crypto/tls"},
		{"daemon/a", "os/user/none", ""},
		{"daemon/a", "net/rpc", ""},
	} {
		if got := strings.Join(m.path(c.from, c.to), " -> "); got != c.want {
			t.Errorf("path(%s, %s) = %q, want %q", c.from, c.to, got, c.want)
		}
	}
	add("daemon/d", "example.test/nowhere")
	m.path("daemon/d", "net")
	if got := strings.Join(m.lost, " "); got != "example.test/nowhere" {
		t.Errorf("lost %q, want the package that is nowhere, and no other", got)
	}
}

// table reads layers: a package, a colon, what it may import.
func table(text string) map[string][]string {
	may := map[string][]string{}
	for line := range strings.Lines(text) {
		if pkg, imports, ok := strings.Cut(line, ":"); ok {
			may[strings.TrimSpace(pkg)] = strings.Fields(imports)
		}
	}
	return may
}
