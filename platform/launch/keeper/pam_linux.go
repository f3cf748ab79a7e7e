package keeper

import (
	"errors"
	"strconv"
	"strings"

	"batchwarden/platform/launch"
	"batchwarden/platform/pam"
)

// refusals are the codes of what PAM says no for.
var refusals = map[pam.Why]string{
	pam.Missing: launch.CodeMissing, pam.Expired: launch.CodeExpired, pam.Locked: launch.CodeLocked, pam.Denied: launch.CodeLogon,
}

// openSession opens the job's PAM session, if it wants one, and gives the order what its modules have set. With an error
// comes the code of the failed job.
func (k *keeper) openSession(p *plan) (*pam.Session, string, error) {
	if p.spec.PAM == "" {
		return nil, "", nil
	}
	s, err := k.PAM.Open(k.life, pam.Question{Service: p.spec.PAM, User: p.order.Account.Name, By: k.nameOf(p.requester)})
	if refused, ok := errors.AsType[*pam.Refused](err); ok {
		return nil, refusals[refused.Why], err
	}
	if err != nil {
		return nil, launch.CodeFailed, err
	}
	// What the request sets wins over what PAM sets, and that over what every job has.
	env := map[string]string{}
	for _, e := range s.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	for name, value := range p.spec.Env {
		env[name] = value
	}
	p.order.Env = environment(&p.order.Account, env)
	if s.Umask != nil && p.spec.Umask == nil {
		p.order.Umask = *s.Umask
	}
	if s.Nice != nil && p.order.Nice == nil {
		nice := *s.Nice
		if most, bounded := p.ceilings["nice"]; bounded {
			nice = max(nice, niceFor(most))
		}
		p.order.Nice = &nice
	}
	p.order.Limits, err = limitsOf(p.spec.Limits, s.Limits, p.ceilings)
	if refused, ok := errors.AsType[*launch.Refused](err); ok {
		return nil, refused.Code, errors.Join(errors.New(refused.Reason), s.Close())
	}
	if err == nil {
		p.text, err = p.order.Encode()
	}
	if err != nil {
		return nil, launch.CodeFailed, errors.Join(err, s.Close())
	}
	return s, "", nil
}

// nameOf is what PAM is told of who asks.
func (k *keeper) nameOf(uid uint32) string {
	a, err := k.Accounts.ByUID(uid)
	if err != nil {
		return strconv.FormatUint(uint64(uid), 10)
	}
	return a.Name
}

// ceilings are what no job's limits exceed.
func (k *keeper) ceilings() map[string]uint64 {
	if k.Max == nil {
		return nil
	}
	return k.Max()
}

// holdSession makes the session last as long as the job, should we end before it.
func (k *keeper) holdSession(j *job, s *pam.Session, c *child) {
	if s == nil {
		return
	}
	if err := s.Hold(c.exit); err != nil {
		k.Log.Warn("the PAM session of a job would end with the launcher", "serial", j.Serial, "err", err)
	}
}

// closeSession ends it after the job, whose end it does not change.
func (k *keeper) closeSession(j *job, s *pam.Session) {
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		k.Log.Warn("the end of a PAM session", "serial", j.Serial, "err", err)
	}
}
