package kafka

// NewWithin is New with a shorter time for records to be acknowledged.
var NewWithin = newBackend
