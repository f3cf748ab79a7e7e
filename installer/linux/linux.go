// Package linux is what a Linux host is given beside the programs: units, accounts, directories and the
// configuration to begin with. Packages install the same files; see package install for what makes them a service.
package linux

import _ "embed" // the files

// Units for systemd.
var (
	//go:embed batchwardend.service
	DaemonUnit string
	//go:embed batchwarden-launcher.service
	LauncherUnit string
	//go:embed batchwarden.socket
	SocketUnit string
)

// Accounts for systemd-sysusers, and directories with their owners and modes for systemd-tmpfiles.
var (
	//go:embed batchwarden.sysusers.conf
	Sysusers string
	//go:embed batchwarden.tmpfiles.conf
	Tmpfiles string
)

// The configuration to begin with. In Configuration there is no address of a Vault server yet, which is a fault: the
// services do not start before somebody has set the machine up.
var (
	//go:embed batchwarden.yaml
	Configuration string
	//go:embed limits.yaml
	Limits string
)
