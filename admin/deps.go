package admin

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Store is what is declared, as this member knows it. What it returns is shared
// with everyone who looks: it must not be changed.
type Store interface {
	// View returns everything at the newest revision.
	View() View
	// DryRun decides a transaction as Propose would, and stores nothing. The
	// error is a *Refused.
	DryRun(*weirv1.Transact) (*weirv1.ApplyResponse, error)
	// Watch yields what changed after a revision, for as long as the context
	// lasts. After 0, or a revision that is not known (any more), the first
	// change is a Reset that holds everything.
	Watch(ctx context.Context, after uint64) iter.Seq2[Change, error]
	// Blob returns content by its digest, or nil when it is not there.
	Blob(digest string) ([]byte, error)
	// Usage returns a page of what was counted, and whether there is more.
	Usage(UsageQuery) ([]UsageRow, bool, error)
}

// View is what was declared at one revision. It does not change.
type View interface {
	Revision() uint64
	Get(resource.Ref) (*weirv1.Resource, bool)
	// List returns at most limit resources of a kind ("": all) and a tenant
	// ("*": all) that come after one, by kind, tenant and name, and whether
	// there are more.
	List(kind, tenant string, after resource.Ref, limit int) ([]*weirv1.Resource, bool)
	// Counts says how many resources there are of each kind.
	Counts() map[string]uint64
	// BlobSize returns the size of content that is there, by its digest.
	BlobSize(digest string) (uint64, bool)
}

// Change is what one revision, or several in a row, did to the store.
type Change struct {
	Revision uint64
	// Reset: Puts is all there is.
	Reset   bool
	Puts    []*weirv1.Resource
	Deletes []resource.Ref
}

// Cluster decides commands, the same on every member.
type Cluster interface {
	// Propose returns once the command is decided and this member's Store shows
	// it. The answer is nil unless the command is a Transact. The error is a
	// *Refused, or wraps ErrUnavailable or ErrUnknown.
	Propose(context.Context, *weirv1.Command) (*weirv1.ApplyResponse, error)
	// Sync waits until this member's Store shows all that was decided before.
	Sync(context.Context) error
	// Status fills in what the cluster knows: leader, members, indexes.
	Status(context.Context, *weirv1.GetStatusResponse) error
}

// What Propose may fail with when nothing was refused. A call whose context
// ended, without either of them, was not done.
var (
	// ErrUnavailable: the command is certainly not done. There may be no leader.
	ErrUnavailable = errors.New("the cluster cannot decide now")
	// ErrUnknown: the command may have been done. The leader may have been lost
	// after it was sent.
	ErrUnknown = errors.New("the outcome is not known")
	// ErrTooNew: the command is not done, and will not be while a member is of an
	// earlier version.
	ErrTooNew = errors.New("not every member knows this yet")
)

// Refused is a decision against a command, with all that spoke against it.
type Refused struct {
	Violations []Violation
}

// Violation is one reason. Ref and Field say which field of which resource.
type Violation struct {
	Ref     resource.Ref
	Field   string
	Reason  Reason
	Message string
}

// Reason says what kind of refusal it is.
type Reason string

// The reasons that callers tell apart. Any other is an invalid declaration.
const (
	// ReasonConflict: a precondition does not hold.
	ReasonConflict Reason = "CONFLICT"
	// ReasonNotFound: what is to be deleted, or referred to, is not there.
	ReasonNotFound Reason = "NOT_FOUND"
	// ReasonInUse: what was to be deleted is still referred to.
	ReasonInUse Reason = "IN_USE"
	// ReasonExists: what was to be made is there already.
	ReasonExists Reason = "ALREADY_EXISTS"
	// ReasonState: it makes sense, but not as things stand.
	ReasonState Reason = "STATE"
	// ReasonInvalid: a declaration is wrong by itself.
	ReasonInvalid Reason = "INVALID"
)

func (r *Refused) Error() string { return "refused: " + summary(r.Violations) }

// Proxies is what the servers know of the proxies.
type Proxies interface {
	// Statuses returns all proxies by name, and a channel that is closed when
	// one of them has changed.
	Statuses() ([]*weirv1.ProxyStatus, <-chan struct{})
}

// Admission judges a module before it is stored, and what policies configure it with.
type Admission interface {
	// Admit returns what the module is, or says why it cannot run. The name is the
	// Plugin's, "" where there is none yet.
	Admit(ctx context.Context, name string, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error)
	// Try starts the plugin under the configuration of each policy, and returns what it
	// has against each, nil where it is content.
	Try(ctx context.Context, plugin *weirv1.Plugin, module []byte, policies []*weirv1.Policy) ([]error, error)
	// TryFirewall compiles the settings of a web application firewall. The message says
	// what it has against them, and the field, below the settings, where; "": nothing.
	TryFirewall(ctx context.Context, settings *weirv1.Firewall) (field, message string, err error)
}

// Servers is the cluster of servers, as this member knows and moves it. Its
// errors are those of Propose, or wrap errors.ErrUnsupported.
type Servers interface {
	// Status tells what this member knows, at once.
	Status(context.Context) (*weirv1.ClusterStatus, error)
	// Remove takes a member out. It is a *Refused when there is none of that
	// name, and, unless forced, when those that are left could not decide.
	Remove(ctx context.Context, name string, force bool) error
	// RemoveProxy shuts an edge or a sidecar out for good. It is a *Refused when none of
	// that name has ever joined.
	RemoveProxy(ctx context.Context, name string) error
	// Transfer lets another member lead; "" is the one that has come furthest.
	Transfer(ctx context.Context, to string) (leader string, err error)
	// Backup returns all of the state with the newest revision in it; stale: as
	// this member has it, without asking the others.
	Backup(ctx context.Context, stale bool) (content io.ReadCloser, revision uint64, err error)
	// CheckBackup reads all of a backup. It is a *Refused when the content is
	// damaged, or is none of this cluster.
	CheckBackup(content io.Reader) error
	// Restore puts the state of a backup in the place of what is there. It is a
	// *Refused, and nothing has changed, when the content is damaged.
	Restore(ctx context.Context, content io.Reader) (revision uint64, err error)
	// Doctor looks at what lies between this member and the others, except
	// whether there is a quorum and who runs which version, which follow from
	// Status.
	Doctor(context.Context) ([]*weirv1.DoctorCheck, error)
}

// Keys are what the cluster seals and signs with. Its errors are those of
// Propose; it is a *Refused while another rotation goes on.
type Keys interface {
	// List tells by what this member knows.
	List(context.Context) (*weirv1.ClusterKeys, error)
	// RotateKey and RotateRoot return once the rotation has begun.
	RotateKey(context.Context) (*weirv1.Rotation, error)
	RotateRoot(context.Context) (*weirv1.Rotation, error)
	// Drop forgets a key; it is a *Refused while something needs it.
	Drop(ctx context.Context, id string) error
}

// JoinTokens makes what lets a node join. Its errors are those of Propose, or
// wrap errors.ErrUnsupported.
type JoinTokens interface {
	Create(context.Context, NewJoinToken) (JoinToken, error)
	// List tells by what this member knows.
	List(context.Context) ([]*weirv1.JoinToken, error)
	// Revoke is a *Refused when there is no token of that id.
	Revoke(ctx context.Context, id string) error
}

// NewJoinToken is a token to be made.
type NewJoinToken struct {
	Role weirv1.CreateJoinTokenRequest_Role
	TTL  time.Duration
	// Uses is how many nodes may join with it; 0: any number.
	Uses uint32
	// Tenant and Service are whom sidecars speak for; empty for others.
	Tenant, Service string
	// Actor is who makes it.
	Actor string
}

// JoinToken is a token that was made: the secret, which is shown once, and what
// it is called.
type JoinToken struct {
	Token, ID string
	Expires   time.Time
}

// Authenticator knows who bears a token.
type Authenticator interface {
	// Authenticate returns the bearer's name. It wraps ErrNoSuchToken when the
	// token is not known, or known no longer.
	Authenticate(ctx context.Context, token string) (actor string, err error)
}

// ErrNoSuchToken is for a token that nobody bears.
var ErrNoSuchToken = errors.New("no such token")
