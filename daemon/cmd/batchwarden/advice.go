package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// nextByCode says what somebody can do who was told no.
var nextByCode = map[string]string{
	wire.RequestInvalid:      "Mend the request; the flags of each command are in its --help.",
	wire.RealmUnknown:        "batchwarden whoami lists the realms that you may name.",
	wire.CallerUnknown:       "batchwarden whoami shows who the service takes you for; an entry under clients in its configuration lets you in.",
	wire.CallerForbidden:     "batchwarden whoami shows what your client entry allows; the rest is in the service's configuration.",
	wire.PolicyDenied:        "batchwarden explain with the same flags shows which rule decided (for operators, and clients that may explain).",
	wire.BatchUserNotAllowed: "The batch user's own document in Vault says launch or retrieve: false.",
	wire.LimitsRefused:       "The owner of this host decides that, in limits.yaml.",
	wire.BatchUserUnknown:    "batchwarden batch-users lists what is here; batchwarden sync looks for more.",
	wire.JobUnknown:          "batchwarden jobs lists the jobs that you can see.",
	wire.RequestNotFound:     "The service may be older than this program; batchwarden whoami shows its version.",
	wire.EventsGone:          "Start again with what is there now: batchwarden jobs.",
	wire.JobRunning:          "Wait for its end, or end it: batchwarden signal.",
	wire.IDConflict:          "Give another --id, or repeat the very same command.",
	wire.RequestTooLarge:     "Send less: a command or an environment this long belongs into a file.",
	wire.CredentialMissing:   "batchwarden batch-users shows its state; put the password into Vault, then batchwarden sync.",
	wire.CredentialStale:     "Vault was not heard of for too long; batchwarden status shows why.",
	wire.CredentialRejected:  "Put the right password into Vault, then batchwarden sync.",
	wire.CredentialExpired:   "Renew the batch user's expiry in Vault, then batchwarden sync.",
	wire.BatchUserAmbiguous:  "Two documents in Vault claim that name; batchwarden status names them.",
	wire.PolicyStale:         "Vault was not heard of for too long; batchwarden status shows why.",
	wire.PolicyInvalid:       "batchwarden status names the policy and its faults; mend it in Vault, then batchwarden sync.",
	wire.AccountMissing:      "Make the account on this host, or change the batch user's username.",
	wire.AccountLocked:       "Unlock the account on this host.",
	wire.AccountExpired:      "Extend the account on this host.",
	wire.AccountChanged:      "The account changed while the job was being started; try again.",
	wire.Overloaded:          "Try again in a moment.",
	wire.Internal:            "The service's log has the details.",
	wire.Unsupported:         "batchwarden whoami lists the features that this service has.",
	wire.LauncherUnavailable: "batchwarden status shows since when; is batchwarden-launcher running?",
	wire.AuditUnavailable:    "Nothing is done that cannot be written down: see to the audit file's disk.",
	wire.MachineSuspended:    "An operator has suspended this machine; jobs that run go on.",

	wire.LocalVaultUnwritable: "See to the disk and the directory that the local vault lies in; batchwarden status says what is wrong.",
}

// advice is what to do about an error, "" when the error says so itself.
func advice(err error) string {
	if p, is := errors.AsType[*wire.Problem](err); is {
		return nextByCode[p.Code]
	}
	switch {
	case errors.Is(err, client.ErrOwner):
		return "Nothing was sent: somebody else than root could have put that socket there. Name the right one with --socket."
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrNotExist):
		return "Is batchwardend running? batchwarden doctor looks for what is wrong. If its socket is elsewhere, name it with --socket or BATCHWARDEN_SOCKET."
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		return "You may not connect to that socket: its mode, or that of its directory, is not what it should be (0666, 0755)."
	case errors.Is(err, client.ErrUnreachable):
		return "Is batchwardend running? batchwarden doctor looks for what is wrong; its log is in journalctl -u batchwardend -u batchwarden-launcher."
	}
	return ""
}

// howUsed is how the command that did not understand its arguments is used.
func howUsed(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return "batchwarden --help lists the commands; batchwarden help topics explains the words."
	}
	return fmt.Sprintf("It is used as: %s\n%s --help says more.", cmd.UseLine(), cmd.CommandPath())
}

// patience is how long nobody answers before it is said.
const patience = 3 * time.Second

// glanceTime is how long a command that only looks waits for the service. One that acts goes on waiting, as nobody could
// say whether it has.
const glanceTime = 10 * time.Second

// sayWaiting says on stderr that nobody answers, once a person begins to wonder: the socket is there, and lets anybody
// connect, also while batchwardend is not running, as the launcher holds it. What waits for something else, as a job's
// end, is left in peace. stop ends it.
func (a *app) sayWaiting(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() { // ends with ctx
		select {
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
		c := client.New(a.socket)
		defer c.Close()
		if _, err := within(ctx, patience, c.Health); errors.Is(err, client.ErrUnreachable) && ctx.Err() == nil {
			fmt.Fprintf(a.errs, "batchwarden: still waiting for an answer at %s; is batchwardend running? "+
				"batchwarden doctor looks for what is wrong. Ctrl-C ends the waiting.\n", clean(a.socket))
		}
	})
	return func() {
		cancel()
		asking.Wait()
	}
}
