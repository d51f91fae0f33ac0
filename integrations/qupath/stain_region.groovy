// Stain the selected annotations of the open H&E image with restain, and bring the virtual stain and DAB detections back.
// Research use only. QuPath 0.4 or newer, with a project. Set the next lines, then run the script.
def python = "/home/me/restain/.venv/bin/python"                             // the Python that has restain
def script = "/home/me/restain/integrations/qupath/stain_region.py"
def model = ""                                                               // folder of a bundle; empty: the shipped one

import groovy.json.JsonSlurper
import java.awt.image.BufferedImage
import qupath.lib.gui.commands.ProjectCommands
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider

def project = getProject()
def server = getCurrentServer()
if (project == null || server == null) {
    println "Open a project and an H&E image first."
    return
}
def image = new File(server.getURIs()[0]).path
def name = new File(image).name
def out = new File(buildFilePath(PROJECT_BASE_DIR, "restain", name))
out.mkdirs()

def command = [python, script, image, "-o", out.path]
def selected = getSelectedObjects().findAll { it.isAnnotation() }
if (!selected.isEmpty()) {
    def roi = new File(out, "region.geojson").path
    exportObjectsToGeoJson(selected, roi, "FEATURE_COLLECTION")
    command += ["--roi", roi]
}
if (!model.isEmpty())
    command += ["--model", model]
// A slide that states no scale needs one, for example: command += ["--mpp", "0.25"]

println command.join(" ")
def process = new ProcessBuilder(command).redirectErrorStream(true).start()
process.inputStream.eachLine { println it }
if (process.waitFor() != 0) {
    println "restain ended with an error; its last line says why."
    return
}
def result = new JsonSlurper().parse(new File(out, "result.json"))

removeObjects(getDetectionObjects().findAll { it.getPathClass()?.toString()?.startsWith("DAB ") }, true)
importObjectsFromFile(result.detections)
if (result.ood)
    importObjectsFromFile(result.ood)
fireHierarchyUpdate()

def uri = new File(result.virtual).toURI().toString()
def builder = ImageServerProvider.getPreferredUriImageSupport(BufferedImage, uri).builders[0]
def entry = project.addImage(builder)
entry.setImageName("${name} (${result.notice})")
def data = entry.readImageData()
data.setImageType(ImageData.ImageType.BRIGHTFIELD_H_DAB)
entry.saveImageData(data)
entry.setThumbnail(ProjectCommands.getThumbnailRGB(data.getServer()))
project.syncChanges()
getQuPath()?.refreshProject()
println "${result.notice}: ${entry.getImageName()}"
