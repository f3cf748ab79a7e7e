package wire

import "net/http"

// Codes never change meaning; new ones are added.
const (
	RequestInvalid      = "request.invalid"
	RealmUnknown        = "realm.unknown"
	CallerUnknown       = "caller.unknown"
	CallerForbidden     = "caller.forbidden"
	PolicyDenied        = "policy.denied"
	BatchUserNotAllowed = "batch_user.not_permitted"
	LimitsRefused       = "limits.refused"
	BatchUserUnknown    = "batch_user.unknown"
	JobUnknown          = "job.unknown"
	RequestNotFound     = "request.not_found"
	IDConflict          = "id.conflict"
	JobRunning          = "job.running"
	EventsGone          = "events.gone"
	RequestTooLarge     = "request.too_large"
	CredentialMissing   = "credential.missing"
	CredentialStale     = "credential.stale"
	CredentialExpired   = "credential.expired"
	CredentialRejected  = "credential.rejected"
	BatchUserAmbiguous  = "batch_user.ambiguous"
	PolicyStale         = "policy.stale"
	PolicyInvalid       = "policy.invalid"
	AccountMissing      = "account.missing"
	AccountLocked       = "account.locked"
	AccountExpired      = "account.expired"
	AccountChanged      = "account.changed"
	Overloaded          = "overloaded"
	Internal            = "internal"
	Unsupported         = "unsupported"
	LauncherUnavailable = "launcher.unavailable"
	AuditUnavailable    = "audit.unavailable"
	MachineSuspended    = "machine.suspended"

	LocalVaultUnwritable = "local_vault.unwritable"
)

// statuses is the HTTP status of each code, and its title.
var statuses = map[string]struct {
	status int
	title  string
}{
	RequestInvalid:      {http.StatusBadRequest, "the request is not well formed"},
	RealmUnknown:        {http.StatusBadRequest, "this machine has no such realm"},
	CallerUnknown:       {http.StatusForbidden, "no client entry matches this caller"},
	CallerForbidden:     {http.StatusForbidden, "this caller may not ask that"},
	PolicyDenied:        {http.StatusForbidden, "the policy does not allow it"},
	BatchUserNotAllowed: {http.StatusForbidden, "the batch user may not be used so"},
	LimitsRefused:       {http.StatusForbidden, "the limits of this host refuse it"},
	BatchUserUnknown:    {http.StatusNotFound, "this machine has no such batch user"},
	JobUnknown:          {http.StatusNotFound, "there is no such job"},
	RequestNotFound:     {http.StatusNotFound, "there is no such resource"},
	IDConflict:          {http.StatusConflict, "the id was used for another job"},
	JobRunning:          {http.StatusConflict, "the job has not ended"},
	EventsGone:          {http.StatusGone, "the events asked for are too old"},
	RequestTooLarge:     {http.StatusRequestEntityTooLarge, "the request is too large"},
	CredentialMissing:   {http.StatusUnprocessableEntity, "the batch user has no credential"},
	CredentialStale:     {http.StatusUnprocessableEntity, "the credential is too old"},
	CredentialExpired:   {http.StatusUnprocessableEntity, "the batch user has expired"},
	CredentialRejected:  {http.StatusUnprocessableEntity, "the credential is no good where it is used"},
	BatchUserAmbiguous:  {http.StatusUnprocessableEntity, "the name means two batch users"},
	PolicyStale:         {http.StatusUnprocessableEntity, "the policy is too old"},
	PolicyInvalid:       {http.StatusUnprocessableEntity, "the realm has no valid policy"},
	AccountMissing:      {http.StatusUnprocessableEntity, "the account does not exist on this host"},
	AccountLocked:       {http.StatusUnprocessableEntity, "the account is locked"},
	AccountExpired:      {http.StatusUnprocessableEntity, "the account has expired"},
	AccountChanged:      {http.StatusUnprocessableEntity, "the account changed meanwhile"},
	Overloaded:          {http.StatusTooManyRequests, "too many requests at once"},
	Internal:            {http.StatusInternalServerError, "batchwarden failed"},
	Unsupported:         {http.StatusNotImplemented, "this version or platform cannot do that"},
	LauncherUnavailable: {http.StatusServiceUnavailable, "the launcher does not answer"},
	AuditUnavailable:    {http.StatusServiceUnavailable, "the audit record cannot be written"},
	MachineSuspended:    {http.StatusServiceUnavailable, "launching is suspended on this machine"},

	LocalVaultUnwritable: {http.StatusServiceUnavailable, "the local vault cannot be written"},
}

// Codes lists every code that a problem document can have.
func Codes() map[string]int {
	m := make(map[string]int, len(statuses))
	for code, s := range statuses {
		m[code] = s.status
	}
	return m
}

// NewProblem makes the problem of a code; detail is for people and must hold
// nothing secret. A code that is not listed is our own bug and becomes
// Internal, which tells the caller nothing.
func NewProblem(code, detail string) *Problem {
	s, known := statuses[code]
	if !known {
		code, detail, s = Internal, "", statuses[Internal]
	}
	return &Problem{Type: "about:blank", Title: s.title, Status: s.status, Code: code, Detail: detail}
}

// Invalid is a request.invalid that names the member at fault.
func Invalid(field, detail string) *Problem {
	p := NewProblem(RequestInvalid, detail)
	p.Field = field
	return p
}
