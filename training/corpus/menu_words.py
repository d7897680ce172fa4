"""The words of "voice-menu English": lists that the grammar draws from, and nothing else.

In: nothing. Out: tuples of words and phrases, lower case, numbers spelt out. The grammar that joins
them is ``training.corpus.menu_grammar``, which also derives the vocabulary.
"""

from __future__ import annotations

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ("thousand", "million", "billion")
ORDINALS = {
    **dict(zip(UNITS[1:4], ("first", "second", "third"), strict=True)),
    **{"five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"},
}  # the others end in "th"; see menu_grammar.ordinal

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
# How voices are asked to say a letter: alone, many of them read "a" as an article.
LETTER_SOUNDS = {"a": "ay", "z": "zee"}
NATO = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"),
    *("juliet", "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo"),
    *("sierra", "tango", "uniform", "victor", "whiskey", "xray", "yankee", "zulu"),
)
SIGNS = (
    *("star", "pound", "hash", "dash", "dot", "comma", "colon", "slash", "plus", "minus"),
    *("equals", "percent", "space", "underscore", "quote", "at", "dollar sign", "question mark"),
    *("less than", "greater than", "zed", "niner"),
)

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)
WHEN = ("today", "tomorrow", "yesterday", "now", "tonight")

WAYS = ("left", "right", "up", "down", "forward", "back", "north", "south", "east", "west")
PLACES = ("front", "rear", "side", "center")
LENGTHS = ("meters", "feet", "miles", "steps", "degrees")

SUITS = ("clubs", "diamonds", "hearts", "spades")
FACES = ("ace", "jack", "queen", "king")

ANSWERS = (
    *("yes", "no", "okay", "cancel", "stop", "start", "help", "repeat", "again", "next"),
    *("previous", "back", "continue", "exit", "quit", "done", "correct", "incorrect", "goodbye"),
    *("hello", "thank you", "please", "sorry", "pause", "play", "record", "save", "delete"),
)

DEVICES = (
    *("light", "lights", "lamp", "fan", "heater", "door", "window", "music", "radio", "alarm"),
    *("timer", "phone", "camera", "kitchen light", "bedroom light", "volume", "temperature"),
)
COMMANDS = (
    *("turn on the {device}", "turn off the {device}", "open the {device}", "close the {device}"),
    *("lock the {device}", "unlock the {device}", "set the {device} to {number}"),
    *("set the {device} to {number} percent", "set a timer for {number} minutes"),
    *("set the alarm for {clock}", "turn the {device} {way}", "what time is it", "play music"),
    *("stop the music", "call {nato}", "call {digits}", "volume {way}", "go {way}"),
    *("turn {way}", "go {way} {number} {length}", "move {way} {number} {length}"),
    *("{place} {way}", "{place} center", "{place} {place}"),
)

# Things a caller is asked to enter or say.
OBJECTS = (
    *("your password", "your new password", "your extension", "the extension", "your number"),
    *("your agent number", "the conference number", "your conference number", "the pin number"),
    *("your phone number", "the area code", "your name", "the channel number", "a mailbox number"),
    *("a new extension", "your account number", "the number", "your mailbox number"),
    *("the first three letters of your last name", "a different number", "your message"),
    *("the first three letters of your first name", "your personal identification number"),
)
# What a key does: "to ..., press ...".
ACTIONS = (
    *("listen to it", "repeat this message", "delete this message", "save this message"),
    *("hear the next message", "hear the previous message", "leave a message", "send a reply"),
    *("reach an operator", "return to the main menu", "enter a number", "call this number"),
    *("call the person who sent this message", "forward the message to another user"),
    *("record your name", "record your temporary greeting", "accept this recording"),
    *("accept this call", "reject it", "use the directory", "change folders", "exit the menu"),
    *("leave the conference", "lock the conference", "unlock the conference", "mute yourself"),
    *("unmute yourself", "increase the volume", "decrease the volume", "play the next message"),
    *("enter an extension", "send this message", "add another recipient", "cancel this message"),
    *("mark this message as urgent", "hear this again", "speak with a representative"),
    *("change your password", "record your message", "place an outgoing call", "cancel"),
)
OPTIONS = ("help", "advanced options", "more entries", "mailbox options", "the operator", "billing")
FOLDERS = ("new", "old", "work", "family", "friends", "urgent", "saved")

# What a system says of a thing: "{thing} {state}".
THINGS = (
    *("your message", "the conference", "your password", "that number", "the number", "your call"),
    *("that extension", "the party", "the person you are calling", "the mailbox", "this feature"),
    *("your temporary greeting", "the line", "call waiting", "call forwarding", "that option"),
)
STATES = (
    *("has been saved", "has been removed", "has been deleted", "has been changed", "is full"),
    *("is not valid", "is invalid", "is not available", "is unavailable", "is busy", "is empty"),
    *("is on the phone", "is in use", "is now locked", "is now unlocked", "is not in service"),
    *(
        "is not answering",
        "is now muted",
        "has been extended",
        "is too short",
        "is currently active",
    ),
    *("will now begin", "has ended", "has left the conference", "is enabled", "is disabled"),
)
SENTENCES = (
    *(
        "please try again",
        "please hold",
        "please hold while i try that extension",
        "one moment please",
    ),
    *(
        "please wait while i connect your call",
        "thank you for calling",
        "thank you for your patience",
    ),
    *("please leave your message after the tone", "all circuits are busy now", "call waiting"),
    *("please try your call again later", "your call is now first in line", "login incorrect"),
    *(
        "password incorrect",
        "message deleted",
        "no more messages",
        "you have entered an invalid option",
    ),
    *("please check the number and dial again", "welcome to the directory", "do not disturb"),
    *(
        "nobody is available to take your call at the moment",
        "you are now muted",
        "agent logged in",
    ),
    *("the number you have dialed is not in service", "i am sorry that is not a valid extension"),
    *("the conference will begin when the leader arrives", "to which folder", "telephone number"),
    *("all of our representatives are currently busy", "please stay on the line", "hold time"),
    *("if this is correct press {key}", "you have {number} new messages", "call from {digits}"),
    *("you have no new messages", "message from extension {digits}", "the time is {clock}"),
    *("there are {number} callers waiting", "the estimated hold time is {number} minutes"),
    *("you are currently caller number {number}", "the number is {digits}", "extension {digits}"),
    *("folder {digit}", "message {number}", "at the tone please say your name", "incoming call"),
    *("from an unknown caller", "an unknown caller", "speed dial", "to call this number"),
    *("you are currently the only person in this conference", "your call will be answered"),
    *("there is currently one other participant in the conference", "followed by the pound key"),
    *("participants in the conference", "other participants in the conference", "and", "for"),
    *("press {key} to accept this call or {digit} to reject it", "then press {key}", "voicemail"),
    *(
        "the number was removed from the list",
        "users will join the conference",
        "mailbox or voicemail",
    ),
    *("your call cannot be completed", "you can leave a message or hang up", "information"),
    *("for more information press {key}", "remove the last user", "decrease your speaking volume"),
    *("please answer yes or no", "i did not understand your answer", "your call was not answered"),
)
