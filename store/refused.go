package store

import (
	"fmt"
	"strings"

	"github.com/weirmesh/weir/resource"
)

// Reason says of what sort a violation is.
type Reason string

// The reasons for which a command is refused.
const (
	// NotFound: what is referred to, or is to be deleted, is not there.
	NotFound Reason = "NOT_FOUND"
	// Conflict: the state is not the one that the caller goes by.
	Conflict Reason = "CONFLICT"
	// InUse: something that stays refers to what would go.
	InUse Reason = "IN_USE"
	// AlreadyExists: it must not be there, and is.
	AlreadyExists Reason = "ALREADY_EXISTS"
	// Invalid: the command makes no sense in any state.
	Invalid Reason = "INVALID"
)

// Violation is one reason why a command was refused.
type Violation struct {
	// Ref is the resource of the command that is to blame. For a value it is
	// the table and the key.
	Ref resource.Ref
	// Field is the path inside it, such as spec.rules[0].backendRefs[0].name;
	// empty where it is the whole.
	Field  string
	Reason Reason
	// Message is a sentence without its end, with a suggestion where there is one.
	Message string
}

func (v Violation) String() string {
	where := v.Ref.String()
	if v.Field != "" {
		where += ": " + v.Field
	}
	return where + ": " + v.Message
}

// RefusedError is the result of a command that changed nothing: all that is
// wrong with it.
type RefusedError struct {
	Violations []Violation
}

func (e *RefusedError) Error() string {
	const shown = 3
	var b strings.Builder
	b.WriteString("refused: ")
	for i, v := range e.Violations {
		if i == shown {
			fmt.Fprintf(&b, "; and %d more", len(e.Violations)-shown)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(v.String())
	}
	return b.String()
}

func refuse(ref resource.Ref, reason Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Violations: []Violation{{Ref: ref, Reason: reason, Message: fmt.Sprintf(format, args...)}}}
}
