package identity

import (
	"github.com/weirmesh/weir/identity/record"
)

// The tables in which the cluster keeps what this package must remember.
const (
	TableAuthority  = "authority"
	TableClusterKey = "cluster-key"
	TableJoinToken  = "join-token"
	TableAdminToken = "admin-token"
	TableNode       = "node"
)

// Records is where those tables are: the cluster's state, so that every member
// knows them.
type Records = record.Store

// ErrConflict is the cause when something was changed by another meanwhile.
var ErrConflict = record.ErrConflict
