package provider

// OptionError says which option a sender does not take, by its name in the configuration.
type OptionError struct {
	Option string // such as key_id, below the provider's section
	Err    error
}

// Error returns what is wrong, without the option.
func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *OptionError) Unwrap() error { return e.Err }

// WrongOption returns an OptionError.
func WrongOption(option string, err error) error { return &OptionError{option, err} }
