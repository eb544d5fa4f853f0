package resource

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// enumeratedFields are what enumerated found, by the full names of messages.
var enumeratedFields sync.Map

// enumerated are the fields of a message that are enumerations, or messages that
// hold some: a look at what was declared need not go anywhere else.
func enumerated(m protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if known, ok := enumeratedFields.Load(m.FullName()); ok {
		return known.([]protoreflect.FieldDescriptor)
	}
	var found []protoreflect.FieldDescriptor
	for i := range m.Fields().Len() {
		if field := m.Fields().Get(i); leadsToEnum(field, map[protoreflect.FullName]bool{}) {
			found = append(found, field)
		}
	}
	enumeratedFields.Store(m.FullName(), found)
	return found
}

// leadsToEnum leaves out maps and lists of enumerations, of which there are none
// that count, and free JSON.
func leadsToEnum(field protoreflect.FieldDescriptor, seen map[protoreflect.FullName]bool) bool {
	switch {
	case field.IsMap():
		return false
	case field.Enum() != nil:
		return !field.IsList()
	case field.Message() == nil || field.Message().FullName() == "google.protobuf.Struct" || seen[field.Message().FullName()]:
		return false
	}
	seen[field.Message().FullName()] = true
	for i := range field.Message().Fields().Len() {
		if leadsToEnum(field.Message().Fields().Get(i), seen) {
			return true
		}
	}
	return false
}
