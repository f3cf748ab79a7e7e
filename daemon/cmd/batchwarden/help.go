package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// topics are the concepts, each in a few sentences and with an example. "batchwarden help NAME" shows one, and
// batchwarden-concepts(7) all of them.
var topics = []struct{ name, short, text string }{
	{"realm", "One controller's world of users and rights", `A realm is one controller's authorization world: an OpCon system, a Universal Controller, one client of an Automation
Engine. Its users, its policy document and its names for batch users and for this machine belong together. Every request
names the realm that it comes from, and is decided by that realm's document alone. The configuration lists the realms:

  realms:
    opcon: {model: opcon, agent: DB01_LSAM}

batchwarden status shows which policy is in force in each.
`},
	{"subject", "The controller's user on whose behalf an agent asks", `A subject is the controller's user on whose behalf an agent asks: the operator who started the job, not the account that
the agent runs as. The agent names the subject, and its client entry says for whom it may speak. The policy of the realm
then says what that subject may do.

  batchwarden explain --realm opcon --subject jdoe --as payroll

A subject that the policy document does not know is denied.
`},
	{"batch-user", "The account that jobs run as, with its password", `A batch user is an account of the operating system that jobs run as, together with its password, if it has one. It lies
in Vault under a name of its own; a realm may call it differently, and it may be called by either. The password leaves
the service only by retrieve, never by launching a job.

  batchwarden batch-users payroll
  batchwarden run --realm opcon --subject jdoe --as payroll -- /opt/pay/run.sh

The account itself has to exist on this host; batchwarden makes none.
`},
	{"client", "A local program that may ask", `A client is a local program that may ask: an agent, a script, a service. Who it is the kernel says, by its user or group;
the program's path, its checksum and its unit can be demanded besides. The first entry under clients in the configuration
that matches counts, and says which realms, subjects and batch users it may name, and what it may do.

  clients:
    - name: opcon-lsam
      match: {user: opcon}
      realms: [opcon]
      may: [authorize, launch]
      subjects: {users: ["*"]}
      batch_users: ["payroll*"]

batchwarden whoami, run as that user, shows which entry matches, or why none does.
`},
	{"limits", "What the owner of the host allows, whatever the policies say", `limits.yaml belongs to the owner of the host. The launcher alone reads it, at every launch, and it wins over everything
that comes from Vault: which users' connections may ask for launches, as which accounts jobs may run, which commands.
Without requesters nobody can launch anything. A fault in it refuses every launch, and names the line.

  version: 1
  requesters: [opcon]
  deny_users: [oracle]

batchwarden config check reads it too, as root.
`},
	{"exit-codes", "What a script can tell from how a command ends", `  0    yes, or done
  1    no: denied, unhealthy, or it did not work
  64   the command line is wrong
  69   the service does not answer
  77   you are not permitted
  78   a configuration or a document is bad
  130  ended by Ctrl-C

batchwarden run ends as the job does: with its exit code, with 128 and the signal's number when a signal ended it, and
with 125 when it was not started; then stderr says why.

  batchwarden run --realm opcon --as payroll -- /opt/pay/run.sh
  [ $? = 125 ] && echo "not started"
`},
	{"offline", "What goes on while Vault does not answer", `While Vault does not answer, this machine goes on with what it was told last: passwords until sync.max_stale after Vault
last confirmed them, policies until sync.policy_max_stale. After that they are refused with credential.stale and
policy.stale. What Vault has removed stays removed, also across a restart. Nothing has to be done when Vault comes back.

  batchwarden status          says since when, and why
  batchwarden sync            asks Vault now
`},
}

// topicCommands are commands that do nothing but be shown by help.
func topicCommands() []*cobra.Command {
	list := []*cobra.Command{{Use: "topics", Short: "What there is to read about", Long: topicList()}}
	for _, t := range topics {
		list = append(list, &cobra.Command{Use: t.name, Short: t.short, Long: strings.TrimRight(t.text, "\n")})
	}
	return list
}

func topicList() string {
	var b strings.Builder
	b.WriteString("batchwarden help TOPIC explains:\n\n")
	for _, t := range topics {
		fmt.Fprintf(&b, "  %-12s %s\n", t.name, t.short)
	}
	return strings.TrimRight(b.String(), "\n")
}
